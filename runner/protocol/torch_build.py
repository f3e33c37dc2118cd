"""A torch build: an interpreter, and what is installed for it. Read without importing torch, which takes seconds.

This file is also run as a script, by its path and by the interpreter that it describes, which has nothing of the
project installed: it imports the standard library only, and nothing of its own package.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.machinery
import importlib.metadata
import json
import os
import re
import site
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

# Distributions whose code runs in the worker, starts it, or may be preloaded into it.
DISTRIBUTIONS = (
    "torch",
    "intel-extension-for-pytorch",
    "torchvision",
    "torchao",
    "transformers",
    "timm",
    "numpy",
    "intel-openmp",
)
# What some builds have and others don't -> the file in torch's folder that shows it, and a text that it must hold.
_PARTS = {
    "torchscript": ("jit/_trace.py", ""),
    "pt2e": ("ao/quantization/quantize_pt2e.py", ""),
    "fx": ("ao/quantization/quantize_fx.py", ""),
    "xeon": ("backends/xeon/run_cpu.py", ""),
    "fp32_precision": ("backends/mkldnn/__init__.py", "fp32_precision"),
}


@dataclasses.dataclass(frozen=True)
class TorchBuild:
    """An interpreter with its torch, as its files describe it."""

    python: str
    """The path of the interpreter, as it is started."""
    version: str
    """Python's version."""
    prefix: str
    """``sys.prefix``: the folder of the environment, links resolved."""
    has_headers: bool
    """Whether Python.h is there, which what torch.compile makes needs."""
    folder: str | None
    """The real path of the folder of torch's package; None if torch is not installed."""
    is_in_user_site: bool
    """Whether torch lies in the user's own site packages (``pip install --user``)."""
    torch: str | None
    """torch's version, as its package says it."""
    git: str | None
    """The git commit that torch was built from."""
    parts: tuple[str, ...]
    """Which parts it has of those that some builds lack: ``torchscript``, ``pt2e``, ``fx``, ``xeon``, and
    ``fp32_precision``, a setting for each kind of float32 operation."""
    distributions: Mapping[str, str]
    """Distribution -> its version."""
    hashes: Mapping[str, str]
    """Distribution -> the hash of the list of its files, with the sha256 of each; without those that have no list."""

    def has(self, distribution: str) -> bool:
        """Whether a distribution is installed."""
        return distribution in self.distributions

    @property
    def packages(self) -> dict[str, str]:
        """Distribution -> its version with the hash of its files, as it is part of a cell's identity."""
        own = f"commit {(self.git or 'unknown')[:12]}"
        return {
            name: f"{version} {self.hashes.get(name) or (own if name == 'torch' else 'without RECORD')}"
            for name, version in self.distributions.items()
        }


def read(path: Sequence[str], python: str = sys.executable) -> TorchBuild:
    """The build of this interpreter.

    Args:
        path: the folders in which packages are looked for.
        python: the path by which the interpreter is started.
    """
    spec = importlib.machinery.PathFinder.find_spec("torch", list(path))
    places = list((spec and spec.submodule_search_locations) or ())
    folder = Path(os.path.realpath(places[0])) if places else None
    text = _text(folder / "version.py") if folder else ""
    distributions, hashes = _distributions(path)
    return TorchBuild(
        python=python,
        version=sys.version.split()[0],
        prefix=os.path.realpath(sys.prefix),
        has_headers=(Path(sysconfig.get_path("include")) / "Python.h").exists(),
        folder=str(folder) if folder else None,
        is_in_user_site=bool(site.ENABLE_USER_SITE and folder and str(folder).startswith(_user_site())),
        torch=_assigned("__version__", text),
        git=_assigned("git_version", text),
        parts=tuple(
            name
            for name, (file, held) in _PARTS.items()
            if folder and (folder / file).exists() and held in _text(folder / file)
        ),
        distributions=distributions,
        hashes=hashes,
    )


def _distributions(path: Sequence[str]) -> tuple[dict[str, str], dict[str, str]]:
    """(distribution -> version, distribution -> hash of its RECORD)."""
    versions, hashes = {}, {}
    for name in DISTRIBUTIONS:
        distribution = next(iter(importlib.metadata.distributions(name=name, path=list(path))), None)
        if distribution is None:
            continue
        versions[name] = distribution.version
        record = distribution.read_text("RECORD")
        if record:
            hashes[name] = hashlib.sha256(record.encode()).hexdigest()[:12]
    return versions, hashes


def _user_site() -> str:
    return os.path.realpath(site.getusersitepackages()) + os.sep


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _assigned(name: str, text: str) -> str | None:
    """The text that a module assigns to a name: ``__version__ = '2.8.0+cpu'``, with or without the name's type."""
    match = re.search(rf"^{name}\s*(?::[^=\n]+)?=\s*(?:TorchVersion\()?['\"]([^'\"\n]+)['\"]", text, re.M)
    return match[1] if match else None


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(read(sys.path, sys.argv[1]))))
