"""What inductor generated in this process so that each kernel records itself: its source, and what each computes."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

_computes: dict[str, list[str]] = {}


def record() -> None:
    """Make inductor put a range of its own around each kernel that it generates, and note the operators in each.

    The ranges are ``enable_kernel_profile`` of torch/_inductor/config.py, which reads the variable when it is imported.
    The names of kernels have some of their operators, cut and run together; the nodes they are made of have them all.
    """
    os.environ["TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE"] = "1"
    from torch._inductor.codegen.cpp import CppScheduling
    from torch._inductor.utils import get_kernel_metadata
    from torch._inductor.virtualized import V

    define: Any = CppScheduling.define_kernel

    def noting(scheduling: Any, source: str, nodes: Any, *args: Any, **kwargs: Any) -> str:
        name: str = define(scheduling, source, nodes, *args, **kwargs)
        _computes.setdefault(name, []).append(get_kernel_metadata(nodes, V.graph.wrapper_code)[0])
        return name

    CppScheduling.define_kernel = noting  # type: ignore[assignment, method-assign]


def keep(folder: Path, names: str) -> int:
    """Copy every file of generated source into a folder, and return how many there are.

    They are the modules of Python that torch.compile runs, whose strings are the kernels, and the C++ of a package of
    AOTInductor.

    Args:
        folder: where the files go.
        names: the file in it that says what each kernel computes, in inductor's words: kernel -> comments.
    """
    cache: Any = sys.modules.get("torch._inductor.codecache")
    files = [Path(inspect.getfile(module)) for module in cache.PyCodeCache.modules] if cache else []
    generated = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if not files and generated:
        files = sorted(Path(generated).rglob("*.wrapper.cpp")) + sorted(Path(generated).rglob("*.kernel.cpp"))
    for number, file in enumerate(files):
        shutil.copyfile(file, folder / f"source-{number}{''.join(file.suffixes)}")
    (folder / names).write_text(json.dumps(_computes, indent=1), encoding="utf-8")
    return len(files)
