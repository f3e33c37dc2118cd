"""Shared fixtures: a way to run the command line as a user does, and one results folder for the session."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runner.machine import lock
from runner.protocol.cell import Allocator, Cell, Graph, Launcher, Model, Precision
from runner.results.outcome import CellRecord, read_cell

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Ran:
    """One finished invocation of ``python -m runner``."""

    status: int
    out: str
    err: str

    @property
    def sweep(self) -> Path:
        """The sweep's folder, as the output names it."""
        found = re.search(r"^files\s+(.+)$", self.out, re.M)
        assert found, self.out + self.err
        return ROOT / found[1].strip()

    def cells(self) -> dict[tuple[str, str], CellRecord]:
        """(allocator, ipex) -> record of every cell with an outcome."""
        return {(r.axes["allocator"], r.axes["ipex"]): r for r in records_of(self)}


def records_of(ran: Ran) -> list[CellRecord]:
    """Every cell of the sweep that has an outcome."""
    found = [read_cell(ran.sweep, folder.name) for folder in (ran.sweep / "cells").iterdir()]
    return [record for record in found if record is not None]


Runner = Callable[..., Ran]

# Of pytest-xdist (pytest -n 2): its workers' sweeps don't wait for each other, and bear each other as they would bear
# anybody's. Only its first one has the lock that real sweeps of this host wait for.
if (_WORKER := os.environ.get("PYTEST_XDIST_WORKER", "gw0")) != "gw0":
    os.environ["RUNNER_LOCK"] = f"{os.environ.get('RUNNER_LOCK', lock.DEFAULT)}.{_WORKER}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests come first, so that no worker of pytest-xdist is left with one of them at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of a file go to one worker, and those of two files that look at the same sweeps."""
    from xdist.scheduler import LoadFileScheduling

    class BySweeps(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = str(super()._split_scope(nodeid))
            return file.replace("tracking/test_browser.py", "sweep/test_sweep.py")

    return BySweeps(config, log)


def invoke(
    arguments: Sequence[str], prefix: Sequence[str] = (), env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Ran:
    """``PREFIX python -m runner ARGUMENTS`` in a process of its own: where the start itself is what is tested."""
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "runner", *arguments],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


# Forks of it have imported already what takes every command line seconds: Hydra, MLflow, matplotlib.
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "hydra.main", "matplotlib.pyplot", "mlflow.artifacts", "mlflow.store.tracking.sqlalchemy_store",
        "runner.commands.sweep", "runner.plugins.hydra_plugins.runner_matrix", "runner.job.run", "runner.sweep.run",
        "tests.conftest",
    ]
)  # fmt: skip


def ask(*arguments: str, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Ran:
    """``python -m runner ARGUMENTS`` in a fork that need not import it: seconds quicker than `invoke`."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = _FORKS.Process(target=_answer, args=(arguments, {**os.environ, **(env or {})}, cwd, out, err))
        process.start()
        process.join(600)
        if process.exitcode is None:
            process.terminate()
            process.join()
            pytest.fail(f"no answer to {arguments} in 600 s: {out.read_text()}{err.read_text()}")
        return Ran(process.exitcode, out.read_text(), err.read_text())


def _answer(arguments: Sequence[str], env: Mapping[str, str], cwd: Path, out: Path, err: Path) -> None:
    from runner.__main__ import main

    for stream, file in enumerate((out, err), start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    # What MLflow's import is told by the runner, and only sets where it is not set.
    told = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_") or name == "DO_NOT_TRACK"}
    os.environ.clear()
    os.environ.update({**told, **env})
    os.chdir(cwd)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.argv = ["runner", *arguments]
    sys.exit(main())


def explained(help_text: str) -> dict[str, str]:
    """Term -> explanation of each paragraph of ``--help``, whatever the width that it is wrapped to."""
    found: dict[str, str] = {}
    term = ""
    for line in help_text.splitlines():
        if line[:1].strip():
            term, _, words = line.partition(" ")
            found[term] = words.strip()
        elif term and line.strip():
            found[term] = f"{found[term]} {line.strip()}".strip()
    return found


def alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie that its new parent has yet to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="session")
def mlruns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One results folder for all tests that launch: creating MLflow's database takes seconds."""
    return tmp_path_factory.mktemp("mlruns")


@pytest.fixture(scope="session")
def run_cli(mlruns: Path) -> Runner:
    """Run ``python -m runner ARGUMENTS``, with results in `mlruns`."""

    def run(*arguments: str, prefix: Sequence[str] = (), env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> Ran:
        # A machine that is not quiet must not change how many jobs a test counts.
        once = [] if any(word.startswith("reruns=") for word in arguments) else ["reruns=0"]
        # Faulty models are let through to the job, whose own checks are what most tests look at.
        once += [] if any(word.startswith("try_models=") for word in arguments) else ["try_models=false"]
        words = [*arguments, *once, f"mlruns={mlruns}"]
        # An environment that the loader itself reads is not that of a fork.
        is_loaded = bool(prefix) or "LD_PRELOAD" in (env or {})
        return invoke(words, prefix, env, cwd) if is_loaded else ask(*words, env=env, cwd=cwd)

    return run


TINY = ("model=tiny", "warmup=3", "iterations=20", "rounds=1")

MODELS = {"PYTHONPATH": str(ROOT / "tests/models")}


# -- whole sweeps that many tests look at -------------------------------------------------------------

# What a caller may have exported and no cell may see.
EXPORTED = {"LD_PRELOAD": "libtcmalloc.so.4", "OMP_NUM_THREADS": "1", "KMP_BLOCKTIME": "77"}


@pytest.fixture(scope="session")
def main_job(run_cli: Runner) -> Ran:
    """The matrix of the README's first lines, started in an environment that must not reach its cells."""
    return run_cli("-m", "allocator=ptmalloc,jemalloc", "ipex=off,on", *TINY, "rounds=2", env=EXPORTED)


@pytest.fixture(scope="session")
def lone_core(run_cli: Runner) -> Ran:
    """One cell on one core, without captures, until its median is known well enough."""
    until = ("min_time_s=0.2", "max_time_s=60", "target_ci_pct=20")
    core = str(max(os.sched_getaffinity(0)))
    return run_cli("model=tiny", "rounds=1", "capture=[]", *until, prefix=["taskset", "-c", core])


# Faults of tests/models/misbehaving.py that need nothing special of their cell, ...
FAULTS = (
    "raises", "killed", "segfaults", "exits", "tears", "comes_from_the_future", "sets_threads", "perturbed",
    "makes_nan", "gives_up", "remembers", "remembers_most", "answers_late", "promises", "channels_last_weights",
)  # fmt: skip
# ... and those that do, each an exclusive cell; the last is the launcher's, which is told not to preload.
FAULTY_CELLS = (
    "{twin: ipex_does_nothing, ipex: on}",
    "{twin: stays_fp32, precision: bf16}",
    "{twin: [is_not_compiled, falls_back_to_eager, freezes_unasked, compiles_again], graph: compile, memory_format: "
    "channels_last}",
    "{twin: freezes_nothing, graph: compile_freezing, memory_format: channels_last}",
    "{twin: is_no_package, graph: aot, memory_format: channels_last}",
    "{twin: autocasts_nothing, precision: bf16_autocast}",
    "{twin: quantizes_nothing, precision: int8_dynamic}",
    "{twin: packs_no_weights, precision: int8_weight, ipex: on}",
    "{twin: observes_nothing, precision: int8, graph: compile_freezing, memory_format: channels_last}",
    "{twin: loses_channels_last, memory_format: channels_last}",
    "{twin: uncalibrated, precision: int8, memory_format: channels_last}",
    "{twin: hides_its_scores, precision: bf16}",
    "{twin: branches, graph: torchscript}",
    "{twin: behaves, allocator: jemalloc}",
)


@pytest.fixture(scope="session")
def faults(run_cli: Runner) -> Ran:
    """One cell per fault, named by its twin, and one that behaves."""
    return run_cli(
        "-m", "model._target_=misbehaving.${twin}", f"twin=behaves,{','.join(FAULTS)}", *TINY, "capture=[]",
        "allocator.launcher_value=default", f"hydra.sweeper.include=[{','.join(FAULTY_CELLS)}]", env=MODELS,
    )  # fmt: skip


# A cell as the configuration would make it, for tests that start nothing; tests vary it with dataclasses.replace().
CELL = Cell(
    model=Model("tiny", "a.tiny", {"x": 1, "y": 2}),
    allocator=Allocator("jemalloc", "jemalloc", "jemalloc", {"MALLOC_CONF": "a:1"}, {}),
    ipex="off",
    memory_format="channels_first",
    precision=Precision("fp32", {"rel_l2": 1e-4}),
    graph=Graph("eager"),
    launcher=Launcher("ipexrun", False, "auto"),
    batch_size=2,
    sequence_length=None,
    instances=1,
    cores_per_instance=None,
    cores=None,
    threads=None,
    node=0,
    openmp="default",
    warmup=3,
    iterations=10,
    min_time_s=1.0,
    max_time_s=2.0,
    target_ci_pct=None,
    seed=0,
)
