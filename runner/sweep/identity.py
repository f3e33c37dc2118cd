"""Cell identity: what a result depends on besides its cell. Together the two make the ``cell_id``.

An identity holds versions, libraries, code and machine. Two results with one ``cell_id`` measure the same thing and may
stand for each other. When an id has changed, `changes` says why.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping

from runner.launch import PlacedCell
from runner.machine import host, servers
from runner.machine.installation import PACKAGE
from runner.protocol import content_hash
from runner.protocol.cell import Cell
from runner.protocol.torch_build import DISTRIBUTIONS
from runner.sweep import model_identity

# Variables of the caller's environment that are not scrubbed and that decide which libraries a worker loads.
_VARIABLES = ("LD_LIBRARY_PATH", "PYTHONHASHSEED", "PYTHONOPTIMIZE")
# The rooms whose code runs between a job file and its result.
_CODE = ("protocol", "worker", "launch")


def _code_hash(*rooms: str) -> str:
    """The hash of the files in these rooms, by name and not by path: moving a room changes no result."""
    files = [file for room in rooms for file in (PACKAGE / room).glob("*.[pc]*") if file.is_file()]
    return content_hash.short(
        "".join(sorted(f"{file.name} {model_identity.hash_of(file)}\n" for file in files)).encode()
    )


@functools.cache
def _machine_identity() -> Mapping[str, str]:
    """The part of an identity that all cells of this machine and installation share."""
    fingerprint = host.fingerprint()
    return {
        "runner's worker": _code_hash(*_CODE),
        "libc": fingerprint["libc"],
        "cpu": fingerprint["cpu_model"],
        "kernel": fingerprint["kernel"],
        **{name: str(fingerprint[name]) for name in ("transparent_hugepages", "governor", "numa_balancing")},
        **fingerprint["inherited"],
    }


def cell_identity(placed: PlacedCell) -> dict[str, str]:
    """Name -> value of everything outside the cell that can change its result on this machine.

    It holds contents and no paths, because an installation that was moved gives the same results.
    """
    place, packages = placed.placement, placed.build.packages
    served = {"runner's serving": _code_hash("job/serving")} if placed.cell.scenario.is_served else {}
    return {
        **{name: packages.get(name, model_identity.ABSENT) for name in DISTRIBUTIONS},
        "python": placed.build.version,
        **_machine_identity(),
        **served,
        **servers.versions(placed.cell),
        "model's code": model_identity.code(placed.cell.model.target),
        **model_identity.given_files(placed.cell.model.kwargs),
        **{f"lib{stem}": f"{file.name} {model_identity.hash_of(file)}" for stem, file in placed.libraries.items()},
        "placement": f"cores {place.core_list}, {place.threads} threads, node {place.node}, {place.task_manager}",
        **{name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }


def cell_id(cell: Cell, identity: Mapping[str, str]) -> str:
    """The content address of a cell and its identity, which is empty if the cell can't run here."""
    text = json.dumps([cell.key, dict(identity)], sort_keys=True, separators=(",", ":"))
    return content_hash.short(text.encode())


def changes(earlier: Mapping[str, str], later: Mapping[str, str]) -> list[str]:
    """A text such as ``torch 2.8.0 1a2b -> 2.9.0 3c4d`` for each entry that differs between two identities."""
    names = dict.fromkeys([*earlier, *later])
    pairs = [(name, earlier.get(name, model_identity.ABSENT), later.get(name, model_identity.ABSENT)) for name in names]
    return [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]
