"""Which allocator serves this process, by answers that only it can give, and with which settings.

A library's name proves nothing: a file called libtcmalloc.so can be a copy of jemalloc. So the file that owns the live
malloc is asked for functions that one allocator alone has, and those of all others must be missing from it.
"""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

from runner.protocol.evidence import AllocatorEvidence
from runner.worker.symbols import function_in, owner


def _mallctl(file: str, name: str, kind: Any) -> Any:
    """A setting as jemalloc itself reports it (mallctl(3)); None if this file is not jemalloc, or has no such one."""
    call = function_in(file, "mallctl")
    if call is None:
        return None
    value = kind()
    size = ctypes.c_size_t(ctypes.sizeof(value))
    if call(name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)):
        return None
    return value.value.decode() if isinstance(value.value, bytes) else value.value


def _numeric_property(file: str, name: str) -> int | None:
    """A number as gperftools' tcmalloc reports it (malloc_extension_c.h); None if this file does not know it."""
    ask, value = function_in(file, "MallocExtension_GetNumericProperty"), ctypes.c_size_t()
    return value.value if ask is not None and ask(name.encode(), ctypes.byref(value)) else None


def _text_of(file: str, symbol: str) -> str | None:
    """What a function of this file without arguments, or with pointers that may be null, returns as a text."""
    call = function_in(file, symbol)
    if call is None:
        return None
    call.restype = ctypes.c_char_p
    text = call(None, None, None)
    return None if text is None else str(text.decode(errors="replace"))


def _tcmalloc_version(file: str) -> str | None:
    """The version of gperftools' tcmalloc, if it also counts the bytes it handed out (malloc_extension_c.h)."""
    if not _numeric_property(file, "generic.current_allocated_bytes"):
        return None
    return _text_of(file, "tc_version") or "unknown"


def _mimalloc_version(file: str) -> str | None:
    call = function_in(file, "mi_version")
    return None if call is None else str(call())


def _glibc_version(file: str) -> str | None:
    is_its_malloc = function_in(file, "mallinfo") is not None
    return _text_of(file, "gnu_get_libc_version") if is_its_malloc else None


def answers_of(file: str) -> dict[str, str | None]:
    """Allocator -> the version that this file gives for it; None where the file has not that allocator's functions."""
    return {
        "glibc": _glibc_version(file),
        "jemalloc": _mallctl(file, "version", ctypes.c_char_p),
        "mimalloc": _mimalloc_version(file),
        "tcmalloc": _tcmalloc_version(file),
    }


_JEMALLOC_SETTINGS: dict[str, Any] = {
    "version": ctypes.c_char_p,
    "opt.dirty_decay_ms": ctypes.c_ssize_t,
    "opt.muzzy_decay_ms": ctypes.c_ssize_t,
    "opt.oversize_threshold": ctypes.c_size_t,
    "opt.background_thread": ctypes.c_bool,
    "opt.metadata_thp": ctypes.c_char_p,
    "opt.thp": ctypes.c_char_p,
    "opt.retain": ctypes.c_bool,
    "arenas.narenas": ctypes.c_uint,
    # What a program can change while it runs; the options above are what it was started with.
    "background_thread": ctypes.c_bool,
    "arena.0.dirty_decay_ms": ctypes.c_ssize_t,
    "arena.0.muzzy_decay_ms": ctypes.c_ssize_t,
}


_TCMALLOC_SETTINGS = ("tcmalloc.max_total_thread_cache_bytes", "tcmalloc.aggressive_memory_decommit")


_MALLINFO = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 of mallinfo(3), glibc 2.33 and later."""

    _fields_ = [(name, ctypes.c_size_t) for name in _MALLINFO]


class _Mallinfo(ctypes.Structure):
    """struct mallinfo of mallinfo(3): its byte counts overflow, its count of mapped blocks does not."""

    _fields_ = [(name, ctypes.c_int) for name in _MALLINFO]


# Past what a heap of smaller freed blocks could hold in one piece (glibc trims its top at 64 MiB by default), and below
# the threshold that ptmalloc_tuned sets. Never touched, so it costs address space only.
_LARGE_BLOCK_BYTES = 2 << 30


def _mallinfo() -> Any:
    """The function that tells what glibc's malloc has given out; None if there is none."""
    libc = ctypes.CDLL(None)
    for name, kind in (("mallinfo2", _Mallinfo2), ("mallinfo", _Mallinfo)):
        info = getattr(libc, name, None)
        if info is not None:
            info.restype = kind
            return info
    return None


def _glibc_maps_large_blocks() -> bool | None:
    """Whether glibc serves a large block by a fresh mmap (its default) or from the heap (tuned): tried, not read.

    None when it can't be tried (no mallinfo, no address space).
    """
    libc, info = ctypes.CDLL(None), _mallinfo()
    if info is None:
        return None
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    before = info().hblks
    block = libc.malloc(_LARGE_BLOCK_BYTES)
    if not block:
        return None
    mapped = info().hblks > before
    libc.free(block)
    return bool(mapped)


# Small enough that glibc takes it from its heap or from a mapping, as it likes, and that mallinfo's counts hold it.
_TENSOR_BYTES = 8 << 20


def _owns_tensors(file: str, name: str) -> bool | None:
    """Whether the storage of a new tensor is an allocator's own, as the allocator itself says it.

    Args:
        file: the file that owns malloc. name: the allocator that it is.
    """
    import torch  # here, because an allocator can be asked who it is without it

    info = _mallinfo() if name == "glibc" else None
    before = info().uordblks + info().hblkhd if info else 0
    tensor = torch.empty(_TENSOR_BYTES, dtype=torch.uint8)
    address = ctypes.c_void_p(tensor.data_ptr())
    if info:
        return bool(info().uordblks + info().hblkhd - before >= _TENSOR_BYTES)
    if name == "jemalloc":
        # arenas.lookup takes a pointer and gives the arena that it belongs to; it refuses those of others.
        arena, size = ctypes.c_uint(), ctypes.c_size_t(ctypes.sizeof(ctypes.c_uint))
        call, own = function_in(file, "mallctl"), ctypes.c_size_t(ctypes.sizeof(address))
        return not call(b"arenas.lookup", ctypes.byref(arena), ctypes.byref(size), ctypes.byref(address), own)
    if name == "tcmalloc":
        call = function_in(file, "MallocExtension_GetOwnership")  # 1: kOwned
        return None if call is None else call(address) == 1
    call = function_in(file, "mi_is_in_heap_region")
    if call is None:
        return None
    call.restype = ctypes.c_bool
    return bool(call(address))


def observe() -> AllocatorEvidence:
    """Which allocator is live in this process. It tries a large block, so call it after the timed loop."""
    malloc = owner("malloc")
    answers = {} if malloc is None else answers_of(malloc)
    settings = None
    if malloc is not None and answers["jemalloc"] is not None:
        settings = {name: _mallctl(malloc, name, kind) for name, kind in _JEMALLOC_SETTINGS.items()}
    thread_caches = None
    if malloc is not None and answers["tcmalloc"] is not None:
        thread_caches = {name: _numeric_property(malloc, name) for name in _TCMALLOC_SETTINGS}
    answering = [name for name, version in answers.items() if version is not None]
    maps = Path("/proc/self/maps").read_text()
    return AllocatorEvidence(
        malloc=malloc,
        free=owner("free"),
        posix_memalign=owner("posix_memalign"),
        answers=answers,
        jemalloc=settings,
        tcmalloc=thread_caches,
        owns_tensors=_owns_tensors(malloc, answering[0]) if malloc is not None and len(answering) == 1 else None,
        glibc_maps_large_blocks=_glibc_maps_large_blocks() if answers.get("glibc") else None,
        mapped=sorted(set(re.findall(r"/\S*lib(?:tcmalloc|jemalloc|mimalloc)\S*", maps))),
    )
