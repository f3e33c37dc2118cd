"""The torch build of this process, as it was loaded: what was asked for is not known here."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from pathlib import Path

import torch

from runner.protocol.evidence import BuildEvidence
from runner.protocol.torch_build import DISTRIBUTIONS

_LIBRARY = "libtorch_cpu.so"


def observe() -> BuildEvidence:
    """Where torch was loaded from, and how it was built."""
    settings = torch.__config__.show()
    places = list(torch.__path__)
    return BuildEvidence(
        prefix=os.path.realpath(sys.prefix),
        torch_folder=os.path.realpath(places[0]) if places else None,
        libraries=mapped(Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")),
        git=getattr(torch.version, "git_version", None),
        onednn=_found(r"MKL-DNN v([\w.]+)", settings),
        mkl=_found(r"Math Kernel Library Version ([\w.]+)", settings),
        settings=" ".join(settings.split()),
        packages=_packages(),
    )


def mapped(maps: str) -> list[str]:
    """The files of torch's library in the text of /proc/self/maps (proc(5)), of which there should be one."""
    files = (line.partition(" /")[2] for line in maps.splitlines() if _LIBRARY in line)
    return sorted({f"/{file}" for file in files if file.rpartition("/")[2].startswith(_LIBRARY)})


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1] if match else None


def _packages() -> dict[str, str]:
    """The version of each package that an import would find now, and of one that is imported, its own word."""
    versions = {}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
