"""What a result depends on beside its cell: versions, libraries, code, machine. Together they make the ``cell_id``.

Two results with one id are of the same thing and may stand for each other; when an id has changed, `changes` says why.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from runner.launch import PlacedCell
from runner.machine import host, servers
from runner.machine.installation import PACKAGE
from runner.matrix.cell import Cell

# Distributions whose code runs in the worker or starts it.
_DISTRIBUTIONS = ("torch", "intel-extension-for-pytorch", "torchvision", "transformers", "numpy", "intel-openmp")
# Of the caller's environment, what is not scrubbed and yet decides which libraries a worker loads.
_VARIABLES = ("LD_LIBRARY_PATH", "PYTHONHASHSEED", "PYTHONOPTIMIZE")
# The project's own code between a job file and its result.
_CODE = ("protocol", "worker", "launch")
_ABSENT = "-"


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


@functools.cache
def _of_file(path: Path) -> str:
    return _short(path.read_bytes())


def _of_distribution(name: str) -> str:
    """Version and content: a distribution's RECORD holds the sha256 of each of its files."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return _ABSENT
    record = found.read_text("RECORD")
    return f"{found.version} {_short(record.encode()) if record else 'without RECORD'}"


def _code_of(*rooms: str) -> str:
    """The content of the files in these rooms, by name and not by path: moving a room changes no result."""
    found = [file for room in rooms for file in (PACKAGE / room).glob("*.[pc]*") if file.is_file()]
    return _short("".join(sorted(f"{file.name} {_of_file(file)}\n" for file in found)).encode())


@functools.cache
def _here() -> Mapping[str, str]:
    """What is the same for every cell of this machine and installation."""
    fingerprint = host.fingerprint()
    return {
        **{name: _of_distribution(name) for name in _DISTRIBUTIONS},
        "runner's worker": _code_of(*_CODE),
        "python": fingerprint["python"],
        "libc": fingerprint["libc"],
        "cpu": fingerprint["cpu_model"],
        "kernel": fingerprint["kernel"],
        **{name: str(fingerprint[name]) for name in ("transparent_hugepages", "governor", "numa_balancing")},
    }


def _model_code(target: str) -> str:
    """Content of the file that defines the model's callable; found without importing it."""
    module = target.rpartition(".")[0]
    try:
        top = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return _ABSENT
    if top is None or top.origin is None:
        return _ABSENT
    inside = module.split(".")[1:]
    file = Path(top.origin)
    if inside:
        file = file.parent.joinpath(*inside).with_suffix(".py")
    return _of_file(file) if file.is_file() else _ABSENT


def of(placed: PlacedCell) -> dict[str, str]:
    """Name -> value of everything outside the cell that can change its result on this machine.

    Paths are no part of it, contents are: an installation that moved gives the same results.
    """
    place = placed.placement
    served = {"runner's serving": _code_of("job/serving")} if placed.cell.scenario.is_served else {}
    return {
        **_here(),
        **served,
        **servers.versions(placed.cell),
        "model's code": _model_code(placed.cell.model.target),
        **{f"lib{stem}": f"{file.name} {_of_file(file)}" for stem, file in placed.libraries.items()},
        "placement": f"cores {place.core_list}, {place.threads} threads, node {place.node}, {place.task_manager}",
        **{name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def cell_id(cell: Cell, known: Mapping[str, str]) -> str:
    """Content address of a cell with its facts (none: it can't run here)."""
    text = json.dumps([cell.key, dict(known)], sort_keys=True, separators=(",", ":"))
    return _short(text.encode())


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """``torch 2.8.0 1a2b -> 2.9.0 3c4d``, one for each fact that differs."""
    names = dict.fromkeys([*before, *after])
    pairs = [(name, before.get(name, _ABSENT), after.get(name, _ABSENT)) for name in names]
    return [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]
