"""What inductor generated in this process: its kernels under a profiler, their source, and what each computes."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

_computes: dict[str, list[str]] = {}


def note_operators(is_package: bool) -> None:
    """Note the operators in each kernel that inductor will generate.

    Their names have some of these operators, cut and run together; the nodes that they are made of have them all.

    Args:
        is_package: whether they are called from C++, where nobody can put a range around a call: inductor then puts one
            into each kernel. That makes other code of them, and takes several times as long to compile.
    """
    if is_package:
        import torch._inductor.config as inductor

        inductor.cpp.enable_kernel_profile = True
    try:
        from torch._inductor.codegen.cpp import CppScheduling
        from torch._inductor.utils import get_kernel_metadata
        from torch._inductor.virtualized import V
    except ImportError:  # of a torch that has them elsewhere: kernels are named all the same
        traceback.print_exc()
        return

    define: Any = CppScheduling.define_kernel

    def noting(scheduling: Any, source: str, nodes: Any, *args: Any, **kwargs: Any) -> str:
        name: str = define(scheduling, source, nodes, *args, **kwargs)
        with suppress(Exception):  # as above
            _computes.setdefault(name, []).append(get_kernel_metadata(nodes, V.graph.wrapper_code)[0])
        return name

    CppScheduling.define_kernel = noting  # type: ignore[assignment, method-assign]


@contextmanager
def recorded() -> Iterator[None]:
    """Put a range around each call of a kernel from the Python that torch.compile generated."""
    with ExitStack() as undo:
        for module in _modules():
            kernels = {name: kernel for name, kernel in vars(module).items() if name.startswith("cpp_")}
            for name, kernel in kernels.items():
                setattr(module, name, _within_range(name, kernel))
                undo.callback(setattr, module, name, kernel)
        yield


def _modules() -> list[Any]:
    """The modules of Python that torch.compile runs."""
    cache: Any = sys.modules.get("torch._inductor.codecache")
    return list(cache.PyCodeCache.modules) if cache else []


def _within_range(name: str, kernel: Callable[..., object]) -> Callable[..., object]:
    # Not record_function(), which takes as long as a small kernel does.
    span: Any = torch._C._profiler._RecordFunctionFast(name)

    def call(*args: object) -> object:
        with span:
            return kernel(*args)

    return call


def keep(folder: Path, names: str) -> int:
    """Copy every file of generated source into a folder, and return how many there are.

    They are the modules of Python that torch.compile runs, whose strings are the kernels, and the C++ of a package of
    AOTInductor.

    Args:
        folder: where the files go.
        names: the file in it that says what each kernel computes, in inductor's words: kernel -> comments.
    """
    files = [Path(inspect.getfile(module)) for module in _modules()]
    generated = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if not files and generated:
        files = sorted(Path(generated).rglob("*.wrapper.cpp")) + sorted(Path(generated).rglob("*.kernel.cpp"))
    for number, file in enumerate(files):
        shutil.copyfile(file, folder / f"source-{number}{''.join(file.suffixes)}")
    (folder / names).write_text(json.dumps(_computes, indent=1), encoding="utf-8")
    return len(files)


def why_unknown() -> str | None:
    """Why nobody knows which operators the kernels compute, in one sentence; None if that is known."""
    if _computes:
        return None
    return "which operators its kernels compute is not known: they were compiled in an earlier process of the cell"
