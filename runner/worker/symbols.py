"""Which loaded file a C symbol comes from: what dladdr(3) says of the live symbols, and never what a file is called."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Any

# Of dladdr1(3) and dlinfo(3).
_RTLD_DL_SYMENT, _RTLD_DI_LINKMAP = 1, 2


class _DlInfo(ctypes.Structure):
    """Dl_info of dladdr(3)."""

    _fields_ = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]


class _Sym(ctypes.Structure):
    """Elf64_Sym of elf(5)."""

    _fields_ = [
        ("name", ctypes.c_uint32),
        ("info", ctypes.c_ubyte),
        ("other", ctypes.c_ubyte),
        ("section", ctypes.c_uint16),
        ("value", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
    ]


class _LinkMap(ctypes.Structure):
    """The public part of struct link_map of dlinfo(3)."""


_LinkMap._fields_ = [
    ("address", ctypes.c_void_p),
    ("name", ctypes.c_char_p),
    ("dynamic", ctypes.c_void_p),
    ("next", ctypes.POINTER(_LinkMap)),
    ("previous", ctypes.POINTER(_LinkMap)),
]


def owner(symbol: str) -> str | None:
    """File of the library whose ``symbol`` wins in this process's global scope; None if none defines it.

    Mapped is not live: two allocators can be mapped at once, and only the first in the search order serves.
    """
    function = getattr(ctypes.CDLL(None), symbol, None)
    if function is None:
        return None
    if not _is_stand_in(function):
        return _file_of(function)
    defining = (file for file in _loaded_files() if function_in(file, symbol) is not None)
    return next((os.path.realpath(file) for file in defining), None)


def function_in(file: str, symbol: str) -> Any:
    """The function that this very file defines, which must be loaded already; None if it defines none of that name.

    dlsym(3) also searches the libraries that a file depends on, so that the function's own file decides.
    """
    try:
        library = ctypes.CDLL(file, mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return None
    function = getattr(library, symbol, None)
    return function if function is not None and _file_of(function) == os.path.realpath(file) else None


def _is_stand_in(function: Any) -> bool:
    """Whether this is only the address that a program linked without PIE gives to a function of a library.

    The loader answers with it, because all of the process must see one address; the function is still the library's.
    Debian's own python3 is such a program, and malloc, whose address it takes, such a function.
    """
    info, symbol = _DlInfo(), ctypes.POINTER(_Sym)()
    dladdr1 = ctypes.CDLL(None).dladdr1
    dladdr1.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int]
    address = ctypes.cast(function, ctypes.c_void_p)
    found = dladdr1(address, ctypes.byref(info), ctypes.byref(symbol), _RTLD_DL_SYMENT)
    return bool(found and symbol and symbol.contents.section == 0)


def _loaded_files() -> Iterator[str]:
    """The loaded libraries, in the order in which the loader searches them for a symbol; the program is left out."""
    library, first = ctypes.CDLL(None), ctypes.POINTER(_LinkMap)()
    library.dlinfo.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p]
    if library.dlinfo(library._handle, _RTLD_DI_LINKMAP, ctypes.byref(first)):
        return
    entry = first.contents.next
    while entry:
        yield os.fsdecode(entry.contents.name)
        entry = entry.contents.next


def _file_of(function: Any) -> str | None:
    info = _DlInfo()
    dladdr = ctypes.CDLL(None).dladdr
    dladdr.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    if not dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(info)) or not info.file:
        return None
    return os.path.realpath(os.fsdecode(info.file))
