"""From a cell to the exact argv and environment that start its worker. Pure: nothing is started here.

``place_cell()`` chooses the cores and libraries of this machine and refuses a cell that can't run; ``command()`` builds
the command line. Each launcher is a module with one function that builds its part.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from runner.launch import direct, environment, ipexrun, libraries, xeon
from runner.launch.placement import Placement, UnplaceableError, chosen_cores, place
from runner.launch.request import LaunchRequest
from runner.machine.capabilities import Machine
from runner.machine.execute import LOCALE
from runner.machine.host import format_cpu_list
from runner.machine.installation import IPEX_EXTRA, WORKER
from runner.matrix.support import build_lacks, why_not
from runner.protocol.cell import LIBRARIES, Cell, target_of
from runner.protocol.errors import RunnerError
from runner.protocol.torch_build import TorchBuild

__all__ = ["Command", "PlacedCell", "Placement", "command", "place_cell", "place_cores"]

_BUILDERS = {"ipexrun": ipexrun.build, "xeon": xeon.build, "none": direct.build}


@dataclass(frozen=True)
class PlacedCell:
    """A cell together with the cores and libraries that it gets on this machine."""

    cell: Cell
    placement: Placement
    libraries: Mapping[str, Path]
    """Stem (``jemalloc``, ``iomp5``) -> the library's real file, which is preloaded."""
    build: TorchBuild
    """The torch build that its worker runs on."""
    notes: tuple[str, ...] = ()
    """What to say about its place, one sentence each: cores that are left out, memory that can't be bound."""


@dataclass(frozen=True)
class Command:
    """What ``runner.machine.execute`` needs to start a job, and what a person needs to repeat it by hand."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    scrubbed: Mapping[str, str]
    """The variables of the caller's environment that were left out, because they would have changed the cell."""
    links: Mapping[Path, Path]
    """Symbolic links to make before the start (link -> library), with the unversioned names that launchers look for."""

    def as_shell(self) -> str:
        """The shell line that repeats the job: it makes the links, changes the environment and starts the command.

        The repeated job writes its result to /tmp/result.json, so that the stored one stays as it is.
        """
        variables = environment.tuning_variables(self.env)
        links = [
            f"mkdir -p {shlex.quote(str(link.parent))} && ln -sfn {shlex.quote(str(file))} {shlex.quote(str(link))} && "
            for link, file in self.links.items()
        ]
        unset = sorted((set(self.scrubbed) | {"CONDA_PREFIX"}) - set(variables))
        words = ["env", *(word for name in unset for word in ("-u", name)), *(f"{k}={v}" for k, v in variables.items())]
        return "".join(links) + shlex.join([*words, *self.argv, "/tmp/result.json"])  # noqa: S108 - for a person to look at


def place_cell(cell: Cell, machine: Machine, caller: Mapping[str, str], build: TorchBuild) -> PlacedCell:
    """Choose the cores and libraries for ``cell`` on this machine.

    Args:
        caller: the caller's environment, for the library folders it names.
        build: the torch build that the worker will run on.

    Raises:
        placement.UnplaceableError: the combination can't work, or the machine lacks the cores or the node asked for.
        LibraryMissingError: the allocator's or OpenMP's library is not installed.
        RunnerError: IPEX, a compiler or numactl is not installed, or the launcher can't take the interpreter's path.
    """
    if re.search(r"[^\w@%+=:,./-]", build.python):
        # The IPEX launcher joins the interpreter's path into a shell line without quoting it.
        raise RunnerError(
            f"the interpreter's path {build.python!r} has a character at which launchers split it; "
            "move the virtual environment"
        )
    impossible = why_not(cell, machine.isa) or build_lacks(cell, build)
    if impossible:
        raise UnplaceableError(impossible)
    placement = _bind(place(cell, machine.topology, machine.task_manager), cell.launcher.task_manager, machine)
    _check_installed(cell, machine, build)
    files = libraries.find_for_cell(cell, libraries.search_path(caller, build.python))
    return PlacedCell(cell, placement, files, build, tuple(_notes(placement, cell.launcher.task_manager, machine)))


def place_cores(machine: Machine, node: int | None = None, cores: int | None = None) -> Placement:
    """The place of a cell that says no more than this, with a thread on each core.

    Raises:
        placement.UnplaceableError: the machine has not that node, or not so many cores there.
    """
    on_node, chosen = chosen_cores(machine.topology, node, cores)
    second = not set(chosen) <= machine.topology.first_siblings()
    return _bind(Placement(chosen, len(chosen), on_node, machine.task_manager, second), "auto", machine)


def _bind(placement: Placement, wanted: str, machine: Machine) -> Placement:
    """The placement with the task manager that the cell wants, or that works on its node.

    Raises:
        RunnerError: the cell wants numactl, and it can't bind memory to this node.
    """
    if wanted == "taskset":
        return replace(placement, task_manager="taskset")
    reason = machine.unbound_nodes.get(placement.node)
    if reason is None and machine.task_manager != "numactl":
        reason = "numactl is not installed, or may not bind memory here"
    if reason is not None and wanted == "numactl":
        raise RunnerError(
            f"launcher.task_manager=numactl: {reason}; install it with: apt-get install numactl, or choose "
            "launcher.task_manager=taskset, which pins cores only"
        )
    return replace(placement, task_manager="taskset" if reason else "numactl")


def _notes(placement: Placement, wanted: str, machine: Machine) -> Iterator[str]:
    """What the user should know about a placement that the cell did not ask for."""
    left_out = format_cpu_list(machine.topology.e_cores_left_out(placement.node))
    if left_out:
        yield (
            f"E-cores {left_out} are left out, because threads on P-cores would wait for them; to measure on E-cores, "
            f"start the runner on them alone: taskset -c {left_out} python -m runner ..."
        )
    reason = machine.unbound_nodes.get(placement.node)
    if reason and wanted == "auto":
        yield f"{reason}: taskset pins the cores, and the kernel decides where memory is"


def _check_installed(cell: Cell, machine: Machine, build: TorchBuild) -> None:
    library = next((name for name in LIBRARIES if cell.model.target == target_of(name)), None)
    if library is not None and not build.has(library):
        raise RunnerError(
            f"model={cell.model.name}: {library} is not installed; install it with: {build.python} -m pip install "
            f"{library}"
        )
    if not build.has("intel-extension-for-pytorch") and cell.uses_ipex:
        raise RunnerError(
            f"ipex={cell.ipex}: Intel Extension for PyTorch (IPEX) is not installed; install it with: {IPEX_EXTRA}"
        )
    if machine.ipex is None and cell.launcher.name == "ipexrun":
        raise RunnerError(
            "launcher=ipexrun: it is a part of Intel Extension for PyTorch (IPEX), which is not installed; choose "
            f"launcher=xeon, or install it with: {IPEX_EXTRA}"
        )
    if cell.graph.is_inductor and not (machine.compiler and build.has_headers):
        raise RunnerError(
            f"graph={cell.graph.name}: torch's inductor needs a C++ compiler and Python's headers; install them with: "
            "apt-get install g++ python3-dev"
        )


def command(
    placed: PlacedCell,
    job_file: Path,
    private: Path,
    caller: Mapping[str, str],
    marker: str,
    collector: Path | None = None,
) -> Command:
    """Build the command line and the environment of a worker.

    Args:
        job_file: the file that tells the worker what to do.
        private: the job's private folder, whose path is short and has no spaces; it need not exist yet.
        caller: the caller's environment.
        marker: the value of RUNNER_JOB in the worker's environment, by which its processes are found again.
        collector: the library that torch, IPEX and oneDNN load for their ITT ranges; it is idle until the worker starts
            it.
    """
    cell = placed.cell
    base, scrubbed = environment.scrub(caller)
    links = {private / "lib" / f"lib{stem}.so": file for stem, file in placed.libraries.items()}
    env = {
        **base,
        **LOCALE,
        **cell.allocator.env,
        "OMP_NUM_THREADS": str(placed.placement.threads),
        # IPEX's import and torch.compile would start one compile worker per core.
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(_inductor_cache(cell, job_file, private)),
        # Both launchers look for lib{jemalloc,tcmalloc,iomp5}.so here before the system's folders.
        "VIRTUAL_ENV": str(private),
        "RUNNER_JOB": marker,
        # The user's own site packages belong to no build, unless the runner itself is installed there.
        **user_site(placed.build, caller),
        **({"INTEL_LIBITTNOTIFY64": str(collector)} if collector else {}),
    }
    if cell.allocator.launcher_value == "preload":
        # Both launchers leave what is there.
        env["LD_PRELOAD"] = str(private / "lib" / f"lib{cell.allocator.library}.so")
    request = LaunchRequest(
        cell=cell,
        placement=placed.placement,
        preload=tuple(links),
        python=placed.build.python,
        # The builder of a launcher that goes through a shell quotes these words.
        program=(str(WORKER), str(job_file)),
    )
    built = _BUILDERS[cell.launcher.name](request)
    return Command(tuple(built.argv), {**env, **built.env}, scrubbed, links)


def _inductor_cache(cell: Cell, job_file: Path, private: Path) -> Path:
    """The folder of inductor's cache: private to the job, or else to the cell, whose folder has those of its jobs.

    No cell finds what another one compiled.
    """
    return (job_file.parent.parent if cell.graph.compile_cache == "warm" else private) / "inductor-cache"


def user_site(build: TorchBuild, caller: Mapping[str, str]) -> dict[str, str]:
    """The variable that hides the user's own packages from a torch build, or that shows it where they are."""
    return _user_base(caller) if build.is_in_user_site else {"PYTHONNOUSERSITE": "1"}


def _user_base(caller: Mapping[str, str]) -> dict[str, str]:
    """The variable that says where the user's site packages are, if the caller has it."""
    return {name: value for name, value in caller.items() if name == "PYTHONUSERBASE"}
