"""Each fault, injected for real: what the user sees, and that nothing measured is lost."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from benchmarks.servers import Server, free_port
from runner.machine import disk, execute, processes
from runner.protocol.errors import StorageError
from runner.results import ledger
from runner.results.outcome import OUTCOME_FILE, RESULT_FILE, ended_rounds
from runner.tracking import recorder
from runner.tracking.store import Store
from tests.conftest import MODELS, ROOT, Ran, ask, invoke, records_of

SMALL = (
    "model=tiny", "batch_size=2", "warmup=2", "iterations=20", "capture=[]", "reruns=0", "try_models=false",
    "launcher=none",
)  # fmt: skip


def begun(words: list[str], line: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """A runner that has just printed a line that starts so."""
    runner = subprocess.Popen(
        [sys.executable, "-m", "runner", *words],
        cwd=ROOT, env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert runner.stdout is not None
    heard = []
    for said in runner.stdout:
        heard.append(said)
        if said.startswith(line):
            return runner
    raise AssertionError("".join(heard))


def ended(runner: subprocess.Popen[str], timeout_s: float = 120) -> Ran:
    out, _ = runner.communicate(timeout=timeout_s)
    return Ran(runner.returncode, out, "")


def recorded(store: Store) -> dict[str, Any]:
    """All that MLflow holds, without what must differ between two stores: ids and the time that logging took."""
    client = MlflowClient(tracking_uri=store.uri)
    runs = {run.info.run_id: run for run in client.search_runs(["1"], max_results=1000)}
    names = {run_id: run.data.tags.get("cell_id", "sweep") for run_id, run in runs.items()}

    def files(run_id: str, below: str | None = None) -> set[str]:
        items = client.list_artifacts(run_id, below)
        return {item.path for item in items if not item.is_dir}.union(
            *(files(run_id, item.path) for item in items if item.is_dir)
        )

    def tags(run: Any) -> dict[str, str]:
        found = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
        return {**found, "parent": names.get(run.data.tags.get("mlflow.parentRunId"), "")}

    return {
        names[run_id]: (
            run.info.status,
            run.info.run_name,
            run.data.params,
            {name: value for name, value in run.data.metrics.items() if name != "cost/log_s"},
            tags(run),
            files(run_id),
        )
        for run_id, run in runs.items()
    }


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished sweep: two cells of two rounds, one of them FAILED."""
    mlruns = tmp_path_factory.mktemp("faults")
    targets = "model._target_=runner.worker.models.tiny,misbehaving.raises"
    ran = ask("-m", *SMALL, targets, "rounds=2", f"mlruns={mlruns}", env=MODELS)
    assert ran.status == 1, ran.out + ran.err
    return ran.sweep


# -- MLflow -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_mlflow_filled_again_from_the_folders_is_as_it_was(sweep: Path, tmp_path: Path) -> None:
    mlruns = sweep.parents[1]
    before = recorded(Store(mlruns))
    ran = ask("import", str(mlruns), "--mlruns", str(tmp_path))
    assert ran.status == 0, ran.out + ran.err
    assert f"[1/1] {sweep.name}: 2 cells" in ran.out
    assert recorded(Store(tmp_path)) == before
    # A folder that can't be read keeps none of the others away.
    torn = tmp_path / "others" / "torn"
    torn.mkdir(parents=True)
    (torn / ledger.SWEEP_FILE).write_text("{")
    some = ask("import", str(torn.parent), str(sweep), "--mlruns", str(tmp_path))
    assert some.status == 1
    assert "[1/2] torn: left out: " in some.out
    assert f"[2/2] {sweep.name}: 2 cells" in some.out
    # Again, and after its own database is lost: nothing twice.
    assert ask("import", str(sweep), "--mlruns", str(tmp_path)).status == 0
    assert recorded(Store(tmp_path)) == before
    (tmp_path / "mlflow.db").unlink()
    assert ask("import", str(sweep), "--mlruns", str(tmp_path)).status == 0
    assert recorded(Store(tmp_path)) == before


@pytest.mark.slow
def test_a_database_that_somebody_writes_to_is_waited_for_and_given_up_in_one_sentence(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = recorder.recorder_for(tmp_path, None)
    record.store.prepare()
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as holder:
        holder.execute("begin exclusive")
        record.attempt(lambda store: store.open_sweep(sweep))  # SQLite itself waits for 20 s
        asked = time.monotonic()
        record.attempt(lambda store: store.open_sweep(sweep))  # left alone for a while
        assert time.monotonic() - asked < 1
        said = capsys.readouterr()
        assert re.fullmatch(
            rf"  note mlruns={tmp_path}: MLflow can't be used \(database is locked\); "
            r"the sweep goes on, its files are kept and recorded later\n",
            said.out,
        )
        assert not said.err
        holder.rollback()
    assert "cells with the right output, fastest first" in record.finish(sweep)
    assert set(recorded(record.store)) == {"sweep", *(cell.cell_id for cell in ledger.read_cells(sweep))}


def test_a_database_that_is_none_is_refused_before_anything_is_launched(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database at all" * 100)
    ran = ask(*SMALL, f"mlruns={tmp_path}")
    assert ran.status == 2
    assert ran.err.startswith(f"runner: mlruns={tmp_path}: mlflow.db can't be used (file is not a database)")
    assert len(ran.err.splitlines()) == 1
    assert not (tmp_path / "sweeps").exists()


@pytest.mark.slow
def test_a_sweep_goes_on_without_its_mlflow_server_and_is_recorded_later(tmp_path: Path) -> None:
    port = free_port()
    server = Server(tmp_path, port)
    try:
        words = ["-m", *SMALL, "rounds=3", f"mlruns={tmp_path / 'own'}", f"tracking_uri={server.uri}"]
        runner = begun(words, "[2/3]")
        server.end()
        ran = ended(runner)
        assert ran.status == 1
        assert f"tracking_uri={server.uri}: MLflow can't be used" in ran.out
        assert ran.out.count("the sweep goes on") == 1
        assert "[3/3]" in ran.out
        [cell] = ledger.read_cells(ran.sweep)
        assert ended_rounds(ran.sweep, cell.cell_id) == [0, 1, 2]
        assert f"Nothing is lost; record it later: python -m runner import {ran.sweep}" in ran.out.replace("\n", "")
        server = Server(tmp_path, port)
        again = ask("import", str(ran.sweep), "--mlruns", str(tmp_path / "own"), "--tracking-uri", server.uri)
        assert again.status == 0, again.out + again.err
        client = MlflowClient(tracking_uri=server.uri)
        runs = client.search_runs(["1"], f"tags.sweep_id = '{ran.sweep.name}'")
        assert sorted((run.data.tags["kind"], run.info.status) for run in runs) == [
            ("cell", "FINISHED"),
            ("sweep", "FINISHED"),
        ]
        [run] = [run for run in runs if run.data.tags["kind"] == "cell"]
        assert run.data.metrics["latency/processes"] == 3
        [parent] = [run for run in runs if run.data.tags["kind"] == "sweep"]
        archives = client.list_artifacts(parent.info.run_id, f"jobs/{cell.cell_id}")
        assert [Path(archive.path).name for archive in archives] == [f"round-{number}.tar.gz" for number in range(3)]
        refused = ask(*SMALL, "tracking_uri=http://127.0.0.1:9", f"mlruns={tmp_path / 'own'}")
        assert refused.status == 2
        assert refused.err.startswith("runner: tracking_uri=http://127.0.0.1:9: MLflow can't be used (")
    finally:
        server.end()


# -- disk ---------------------------------------------------------------------------------------------


def test_a_disk_without_room_for_a_job_is_told_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk.check(tmp_path)
    monkeypatch.setattr(disk, "LEAST_FREE_BYTES", 2**62)
    with pytest.raises(StorageError, match="MB are free, and a job needs"):
        disk.check(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 200 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if execute.run_short(["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(folder)]).status:
        pytest.skip("mounting a file system is not permitted here")
    yield folder
    assert execute.run_short(["umount", "-l", str(folder)]).status == 0


@pytest.mark.slow
def test_a_disk_that_fills_up_stops_the_sweep_and_loses_nothing(small_disk: Path) -> None:
    filler = small_disk / "filler"
    # Not among model.kwargs, whose files are part of a cell's identity.
    env = {**MODELS, "DISK_FILLER": str(filler)}
    words = ["model._target_=misbehaving.fills_the_disk", "rounds=2", f"mlruns={small_disk / 'mlruns'}"]
    runner = begun([*SMALL, *words], "[2/2]", env=env)
    ran = ended(runner)
    assert ran.status == 1, ran.out
    [sweep] = (small_disk / "mlruns" / "sweeps").iterdir()
    assert "make room there, then go on with: python -m runner resume" in " ".join(ran.out.split())
    assert "Traceback" not in ran.out
    [cell] = ledger.read_cells(sweep)
    assert ended_rounds(sweep, cell.cell_id) == [0]  # the second counts as not run
    first = (sweep / "cells" / cell.cell_id / "round-0" / RESULT_FILE).read_bytes()
    filler.write_bytes(b"")  # room again; the model fills it once
    again = ask("resume", sweep.name, "--mlruns", str(small_disk / "mlruns"), env=env)
    assert again.status == 0, again.out + again.err
    assert "1 job had ended before" in again.out
    assert (sweep / "cells" / cell.cell_id / "round-0" / RESULT_FILE).read_bytes() == first
    assert {run[0] for run in recorded(Store(small_disk / "mlruns")).values()} == {"FINISHED"}


# -- memory -------------------------------------------------------------------------------------------


@pytest.fixture
def small_memory() -> Iterator[Path]:
    """A control group whose processes share 700 MB."""
    for root, limit, swap in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.swappiness"),
        ("/sys/fs/cgroup", "memory.max", "memory.swap.max"),
    ):
        group = Path(root) / f"runner-test-{os.getpid()}"
        try:
            group.mkdir()
            (group / limit).write_text(str(700 * 2**20))
            (group / swap).write_text("0")
        except OSError:
            if group.is_dir():
                group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("control groups can't be made here")


@pytest.mark.slow
def test_a_worker_that_the_kernel_ended_for_want_of_memory_is_told_from_one_that_was_killed(
    small_memory: Path, tmp_path: Path
) -> None:
    models = "model._target_=misbehaving.devours,misbehaving.killed", f"+model.kwargs.group={small_memory}"
    ran = ask("-m", *SMALL[:-1], *models, "rounds=1", f"mlruns={tmp_path}", env=MODELS)
    assert ran.status == 1
    failures = {
        ledger.read_cell(ran.sweep, file.parent.parent.name).settings["model._target_"]: json.loads(file.read_text())
        for file in ran.sweep.glob(f"cells/*/round-0/{OUTCOME_FILE}")
    }
    assert failures["misbehaving.devours"]["failure"].endswith(
        "the kernel's out-of-memory killer ended it: use a smaller batch_size or fewer instances, or free memory"
    )
    killed = failures["misbehaving.killed"]["failure"]
    assert "killed by SIGKILL (the kernel's out-of-memory killer did not act" in killed


# -- the user -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_interrupt_ends_everything_at_once(tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    models = "model._target_=misbehaving.ignores_signals", f"+model.kwargs.mark={reached}"
    runner = begun([*SMALL, *models, "rounds=1", f"mlruns={tmp_path}"], "[1/1]", env=MODELS)
    mark = f"{runner.pid}."
    deadline = time.monotonic() + 60
    while not reached.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes.processes_with_marker(mark, is_prefix=True)
    runner.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert runner.poll() is None  # it gives the job its grace
    runner.send_signal(signal.SIGINT)
    asked = time.monotonic()
    ran = ended(runner, 10)
    assert time.monotonic() - asked < 5
    assert ran.status == 130
    [sweep] = (tmp_path / "sweeps").iterdir()
    assert f"stopped at once. To go on: python -m runner resume {sweep.name}" in ran.out
    assert not processes.processes_with_marker(mark, is_prefix=True)
    assert set(ask("import", str(tmp_path), "--mlruns", str(tmp_path)).out.split()) >= {f"{sweep.name}:"}
    assert {run[0] for run in recorded(Store(tmp_path)).values()} == {"KILLED"}


# -- launcher -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_broken_launcher_fails_its_cell_with_its_last_words(tmp_path: Path) -> None:
    # A folder with the package itself would be left out, as one of another torch build.
    (tmp_path / "intel_extension_for_pytorch.py").write_text("raise ImportError('half an installation')\n")
    words = [*SMALL[:-1], "launcher=ipexrun", "launcher.plain=true", "rounds=1", f"mlruns={tmp_path}"]
    ran = ask(*words, env={"PYTHONPATH": str(tmp_path)})
    assert ran.status == 1
    [record] = records_of(ran)
    assert record.failure == "the worker left no result: exit status 1, last line: ImportError: half an installation"


# -- files and clocks ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_finished_job_whose_result_is_torn_is_run_again(tmp_path: Path) -> None:
    ran = ask(*SMALL, "rounds=2", f"mlruns={tmp_path}")
    assert ran.status == 0, ran.out + ran.err
    torn, whole = sorted(ran.sweep.glob(f"cells/*/round-*/{RESULT_FILE}"))
    torn.write_bytes(torn.read_bytes()[:100])
    kept = whole.read_bytes()
    again = ask("resume", ran.sweep.name, "--mlruns", str(tmp_path))
    assert again.status == 0, again.out + again.err
    assert "1 job had ended before" in again.out
    assert whole.read_bytes() == kept
    assert json.loads(torn.read_text())["error"] is None


@pytest.mark.slow
def test_a_clock_that_jumps_changes_no_figure(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, time\n"
        "_true, _calls = time.time, itertools.count()\n"
        "time.time = lambda: _true() + 86400 * (-1) ** next(_calls)\n"
    )
    ran = invoke([*SMALL, "rounds=2", f"mlruns={tmp_path / 'mlruns'}"], env={"PYTHONPATH": str(tmp_path)})
    assert ran.status == 0, ran.out + ran.err
    [cell] = [found for name, found in recorded(Store(tmp_path / "mlruns")).items() if name != "sweep"]
    costs = {name: value for name, value in cell[3].items() if name.startswith("cost/")}
    assert costs
    assert all(0 <= value < 120 for value in costs.values()), costs
    assert 0 < cell[3]["latency/p50_ms"] < 1000


@pytest.mark.slow
def test_a_clock_that_is_set_back_during_a_pass_costs_that_pass(tmp_path: Path) -> None:
    # The runner's clock of durations goes back by a day while the first of two jobs runs.
    (tmp_path / "sitecustomize.py").write_text(
        "import itertools, sys, time\n"
        "_true, _calls = time.monotonic, itertools.count()\n"
        "def _monotonic():\n"
        "    code = sys._getframe(1).f_code\n"
        "    if code.co_filename.endswith('machine/execute.py') and code.co_name == 'run' and next(_calls) == 1:\n"
        "        return _true() - 86400\n"
        "    return _true()\n"
        "time.monotonic = _monotonic\n"
    )
    words = [*SMALL, "rounds=2", "retries=1", f"mlruns={tmp_path / 'mlruns'}"]
    ran = invoke(words, env={"PYTHONPATH": str(tmp_path)})
    reason = r"FAILED \(cost_s\.job is -86[34]\d\d\.\d+, which is out of range: a clock was set.*tried again 1 of 1"
    assert re.search(reason, ran.out), ran.out + ran.err
    assert "[2/2]" in ran.out
    assert ran.status == 0, ran.out + ran.err


# -- all of it, at random -----------------------------------------------------------------------------


@pytest.mark.slow
def test_sweeps_killed_at_random_and_resumed_lose_double_and_leave_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "--sweeps", "1"],
        cwd=ROOT, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("lost 0, duplicates 0, left RUNNING 0, orphans 0, incomplete 0\n")
