"""Which loaded file a C symbol comes from: what dladdr(3) says of the live symbols, and never what a file is called."""

from __future__ import annotations

import ctypes
import os
from typing import Any


class _DlInfo(ctypes.Structure):
    """Dl_info of dladdr(3)."""

    _fields_ = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]


def owner(symbol: str) -> str | None:
    """File of the library whose ``symbol`` wins in this process's global scope; None if none defines it.

    Mapped is not live: two allocators can be mapped at once, and only the first in the search order serves.
    """
    function = getattr(ctypes.CDLL(None), symbol, None)
    return None if function is None else _file_of(function)


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


def _file_of(function: Any) -> str | None:
    info = _DlInfo()
    dladdr = ctypes.CDLL(None).dladdr
    dladdr.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    if not dladdr(ctypes.cast(function, ctypes.c_void_p), ctypes.byref(info)) or not info.file:
        return None
    return os.path.realpath(os.fsdecode(info.file))
