"""From a cell to the exact argv and environment that start its worker. Pure: starts nothing.

``place_cell()`` resolves what the machine decides (cores, libraries) and refuses what can't run;
``command()`` builds the command line. Each launcher is one module with one function.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runner.launch import direct, environment, ipexrun, libraries, xeon
from runner.launch.placement import Placement, UnplaceableError, place
from runner.launch.request import LaunchRequest
from runner.machine.capabilities import Machine
from runner.machine.installation import IPEX_EXTRA, WORKER
from runner.matrix.cell import Cell
from runner.matrix.support import why_not
from runner.protocol.errors import RunnerError

__all__ = ["Command", "PlacedCell", "Placement", "command", "place_cell"]

_BUILDERS = {"ipexrun": ipexrun.build, "xeon": xeon.build, "none": direct.build}


@dataclass(frozen=True)
class PlacedCell:
    """A cell together with what this machine has for it."""

    cell: Cell
    placement: Placement
    libraries: Mapping[str, Path]
    """Stem (``jemalloc``, ``iomp5``) -> the real file to preload."""


@dataclass(frozen=True)
class Command:
    """Everything ``runner.machine.execute`` needs, and what a person needs to do it again by hand."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    scrubbed: Mapping[str, str]
    """What the caller's environment held that would have leaked into the cell."""
    links: Mapping[Path, Path]
    """Symbolic links to make first: the unversioned library names that launchers look for."""

    def as_shell(self) -> str:
        """A line for a person, to repeat the job: links, what differs from the caller's environment, the command.

        Its result goes to /tmp/result.json, beside the stored one.
        """
        kept = environment.visible(self.env)
        links = [
            f"mkdir -p {shlex.quote(str(link.parent))} && ln -sfn {shlex.quote(str(file))} {shlex.quote(str(link))} && "
            for link, file in self.links.items()
        ]
        unset = sorted((set(self.scrubbed) | {"CONDA_PREFIX"}) - set(kept))
        words = ["env", *(word for name in unset for word in ("-u", name)), *(f"{k}={v}" for k, v in kept.items())]
        return "".join(links) + shlex.join([*words, *self.argv, "/tmp/result.json"])  # noqa: S108 - a person's own


def place_cell(cell: Cell, machine: Machine, caller: Mapping[str, str], python: str) -> PlacedCell:
    """Resolve cores and libraries for ``cell``.

    Args:
        caller: the caller's environment, for the library folders it names.
        python: the interpreter that will run the worker.

    Raises:
        placement.UnplaceableError: the combination can't work, or the machine has not the cores or node asked for.
        LibraryMissingError: the allocator's or OpenMP's library is not installed.
        RunnerError: IPEX or a compiler is not installed, or the launcher can't start anything from this installation.
    """
    if re.search(r"[^\w@%+=:,./-]", python):
        # The IPEX launcher joins the interpreter's path into a shell line without quoting it.
        raise RunnerError(
            f"the interpreter's path {python!r} has a character that launchers split at: move the environment"
        )
    impossible = why_not(cell, machine.isa)
    if impossible:
        raise UnplaceableError(impossible)
    wanted = cell.launcher.task_manager
    if wanted == "numactl" and machine.task_manager != "numactl":
        raise RunnerError(
            "launcher.task_manager=numactl: it is not installed or may not bind memory here; "
            "install it with: apt-get install numactl, or choose taskset"
        )
    placement = place(cell, machine.topology, machine.task_manager if wanted == "auto" else wanted)
    _check_installed(cell, machine)
    found = libraries.for_cell(cell, libraries.search_path(caller, python))
    return PlacedCell(cell, placement, found)


def _check_installed(cell: Cell, machine: Machine) -> None:
    if machine.ipex is None and cell.ipex == "on":
        raise RunnerError(
            f"ipex=on: Intel Extension for PyTorch (IPEX) is not installed; install it with: {IPEX_EXTRA}"
        )
    if machine.ipex is None and cell.launcher.name == "ipexrun":
        raise RunnerError(
            f"launcher=ipexrun: it comes with IPEX, which is not installed; choose launcher=xeon, or: {IPEX_EXTRA}"
        )
    if cell.graph.name == "compile" and machine.compiler is None:
        raise RunnerError(
            "graph=compile: inductor needs a C++ compiler and Python's headers; install them with: "
            "apt-get install g++ python3-dev"
        )


def command(
    placed: PlacedCell,
    job_file: Path,
    private: Path,
    caller: Mapping[str, str],
    python: str,
    marker: str,
    collector: Path | None = None,
) -> Command:
    """The command line and environment for one job.

    Args:
        job_file: the file that tells the worker what to do.
        private: a folder, short and without spaces, that will hold ``lib/`` links; it need not exist yet.
        marker: value of RUNNER_JOB in the worker's environment, by which its processes are found again.
        collector: library that torch, IPEX and oneDNN load for their ITT ranges; idle until the worker wakes it.
    """
    cell = placed.cell
    base, scrubbed = environment.scrub(caller)
    links = {private / "lib" / f"lib{stem}.so": file for stem, file in placed.libraries.items()}
    env = {
        **base,
        **cell.allocator.env,
        "OMP_NUM_THREADS": str(placed.placement.threads),
        # IPEX's import and torch.compile would start one compile worker a core.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        # Private to the job, so that no cell finds what another one compiled.
        "TORCHINDUCTOR_CACHE_DIR": str(private / "inductor"),
        # Both launchers look for lib{jemalloc,tcmalloc,iomp5}.so here before the system's folders.
        "VIRTUAL_ENV": str(private),
        "RUNNER_JOB": marker,
        **({"INTEL_LIBITTNOTIFY64": str(collector)} if collector else {}),
    }
    request = LaunchRequest(
        cell=cell,
        placement=placed.placement,
        preload=tuple(links),
        python=python,
        # Launchers that go through a shell get quoted words, the others see the same text unquoted.
        program=(str(WORKER), str(job_file)),
    )
    built = _BUILDERS[cell.launcher.name](request)
    return Command(tuple(built.argv), {**env, **built.env}, scrubbed, links)
