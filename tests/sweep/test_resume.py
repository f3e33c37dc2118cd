"""A sweep that was killed goes on: what finished is kept, what is missing runs, what changed is reported."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.tracking import MlflowClient

from runner.commands.resume import command_line
from runner.config.schema import Config
from runner.machine import host
from runner.machine.processes import Process, end_orphans, processes_with_marker
from runner.protocol.cell import Cell
from runner.protocol.errors import RunnerError
from runner.results import ledger
from runner.results.outcome import OUTCOME_FILE, job_folder
from runner.sweep import identity, model_identity, resume
from runner.sweep.planning import PlannedCell
from runner.tracking.store import Store
from tests.config.test_config import config
from tests.conftest import CELL, MODELS, ROOT, alive, ask, records_of


def config_of(cell: Cell) -> Config:
    return replace(config(), cell=cell)


FACTS = {"torch": "2.8.0 abc", "libjemalloc": "libjemalloc.so.2 def", "kernel": "6.1"}


# -- processes ----------------------------------------------------------------------------------------


def test_a_process_is_alive_until_it_ends_and_its_number_is_not_enough() -> None:
    child = subprocess.Popen(["sleep", "60"])
    started = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    process = Process(child.pid, started)
    assert Process.of(str(process)) == process
    assert process.is_alive
    assert not replace(process, started=started - 1).is_alive
    child.kill()
    child.wait()
    assert not process.is_alive
    assert Process.this().is_alive


@given(st.text(max_size=20))
def test_a_text_that_names_no_process_is_of_none_that_lives(text: str) -> None:
    process = Process.of(text)
    assert not process.is_alive or str(process) == text


def test_a_process_of_a_job_without_a_runner_is_ended_and_named() -> None:
    gone = subprocess.Popen(["sleep", "60"], env={"RUNNER_JOB": "999999999.1/some-sweep/abc/0"})
    kept = subprocess.Popen(["sleep", "60"], env={"RUNNER_JOB": f"{Process.this()}/some-sweep/abc/0"})
    try:
        said = end_orphans()
        assert f"process {gone.pid} of job some-sweep/abc/0, whose runner (999999999) is gone" in said
        assert gone.wait(5) == -signal.SIGKILL
        assert alive(kept.pid)
    finally:
        for process in (gone, kept):
            process.kill()
            process.wait()


# -- identity -----------------------------------------------------------------------------------------


def test_every_fact_and_the_cell_change_the_id() -> None:
    ids = {identity.cell_id(CELL, FACTS), identity.cell_id(replace(CELL, seed=7), FACTS), identity.cell_id(CELL, {})}
    ids |= {identity.cell_id(CELL, {**FACTS, name: "other"}) for name in FACTS}
    assert len(ids) == 3 + len(FACTS)
    assert identity.cell_id(CELL, dict(reversed(FACTS.items()))) == identity.cell_id(CELL, FACTS)


def test_a_change_is_said_with_both_values_and_what_came_or_went() -> None:
    now = {"torch": "2.9.0 xyz", "kernel": "6.1", "libtcmalloc": "new"}
    assert identity.changes(FACTS, now) == [
        "torch 2.8.0 abc -> 2.9.0 xyz",
        "libjemalloc libjemalloc.so.2 def -> -",
        "libtcmalloc - -> new",
    ]


def test_code_that_a_model_imports_of_its_own_is_part_of_its_identity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / f"acme_{secrets.token_hex(4)}"  # without __init__.py
    (package / "parts").mkdir(parents=True)
    (package / "model.py").write_text("import json\nfrom .parts import block\n\nclass Net:\n    ...\n")
    (package / "parts/block.py").write_text("from ..layers import Layer\nimport acme_outside\n")
    (package / "layers.py").write_text("class Layer: ...\n")
    (package / "unrelated.py").write_text("x = 1\n")
    (tmp_path / "acme_outside.py").write_text("this is no Python\n")
    target = f"{package.name}.model.Net.build"

    def code() -> str:
        model_identity.code.cache_clear()
        return model_identity.code(target)

    hashes = {code()}
    for file in ("model.py", "parts/block.py", "layers.py", "../acme_outside.py"):
        with (package / file).open("a") as opened:
            opened.write("# another\n")
        hashes.add(code())
    assert len(hashes) == 5
    (package / "unrelated.py").write_text("x = 2\n")
    assert code() in hashes
    assert model_identity.code("acme_nowhere.model") == model_identity.ABSENT


def test_the_content_of_files_that_a_model_is_given_is_part_of_its_identity(tmp_path: Path) -> None:
    weights, folder = tmp_path / "weights.pt", tmp_path / "pretrained"
    weights.write_bytes(b"first")
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/config.json").write_text("{}")
    kwargs = {"weights": str(weights), "parts": [str(folder)], "variant": "base", "layers": 3, "odd": "a\0b"}
    first = model_identity.given_files(kwargs)
    assert first.keys() == {"model.kwargs.weights", "model.kwargs.parts[0]"}
    weights.write_bytes(b"other")
    (folder / "deep/config.json").write_text("[]")
    assert not set(first.values()) & set(model_identity.given_files(kwargs).values())
    [change] = identity.changes(first, {**first, "model.kwargs.weights": "new"})
    assert change.startswith("model.kwargs.weights ")


# -- what a sweep leaves for it -----------------------------------------------------------------------


def entry(arguments: list[str], runner: str, folder: str) -> ledger.SweepEntry:
    here = host.fingerprint()["host_id"]
    return ledger.SweepEntry("s", "adhoc", "line", here, "commit", False, [], arguments, folder, "", runner)


def leave(mlruns: Path, name: str, arguments: list[str], runner: str = "1.1", folder: str = "") -> Path:
    sweep = mlruns / "sweeps" / name
    (sweep / "cells").mkdir(parents=True)
    ledger.begin(sweep, entry(arguments, runner, folder or str(Path.cwd())))
    return sweep


def test_the_line_of_a_sweep_is_repeated_in_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = leave(tmp_path, "20261123-a", ["-m", "ipex=off,on"])
    monkeypatch.chdir("/")
    line = command_line(["--mlruns", str(tmp_path), "20261123", "retries=1"])
    # It is not where its own words would have put it: somebody has moved it.
    moved = f'mlruns="{sweep.parent.parent}"'
    assert line == ["-m", "ipex=off,on", moved, "retries=1", "resume=true", f'hydra.sweep.dir="{sweep}"']
    assert Path.cwd() == tmp_path
    assert command_line(["--mlruns", str(tmp_path), "rounds=8"])[3] == "rounds=8"
    assert command_line(["20261123", "--mlruns", str(tmp_path), "rounds=8"])[3] == "rounds=8"


def test_a_sweep_that_runs_or_lost_its_folder_or_state_is_refused(tmp_path: Path) -> None:
    leave(tmp_path, "a", [], runner=str(Process.this()))
    leave(tmp_path, "b", [], folder="/nowhere/at/all")
    leave(tmp_path, "c", []).joinpath(ledger.SWEEP_FILE).write_text("[")
    for name, said in (("a", "still running"), ("b", "which is gone"), ("c", "can't be read")):
        with pytest.raises(RunnerError, match=f"^resume {name}: .*{said}"):
            command_line([name, "--mlruns", str(tmp_path)])


def test_a_sweep_of_another_host_is_not_gone_on_with_here_and_its_process_is_not_guessed(tmp_path: Path) -> None:
    sweep = leave(tmp_path, "a", ["-m", "ipex=on"], runner=str(Process.this()))
    elsewhere = replace(ledger.read_sweep(sweep), host_id="another", hostname="node7")
    ledger.begin(sweep, elsewhere)
    with pytest.raises(RunnerError, match=r"^resume s: host node7 measured it, and this is .*: line$"):
        command_line(["a", "--mlruns", str(tmp_path)])
    assert resume.newest_sweep_of(tmp_path, ["-m", "ipex=on", "resume=true"]) is None
    ran = ask("import", str(sweep), "--mlruns", str(tmp_path))
    assert ran.status == 1
    assert "left out: it has not ended on host node7, or was killed there; resume it there first" in ran.out


def test_a_process_of_another_boot_is_not_alive() -> None:
    assert not replace(Process.this(), boot="0-0").is_alive
    assert Process.of(str(Process.this())) == Process.this()


def test_resume_true_finds_the_newest_sweep_of_the_same_line_that_does_not_run(tmp_path: Path) -> None:
    leave(tmp_path, "1", ["-m", "ipex=on"])
    wanted = leave(tmp_path, "2", ["-m", "ipex=on"])
    leave(tmp_path, "3", ["-m", "ipex=off"])
    leave(tmp_path, "4", ["-m", "ipex=on"], runner=str(Process.this()))
    leave(tmp_path, "5", ["-m", "ipex=on"], folder="/")
    assert resume.newest_sweep_of(tmp_path, ["-m", "ipex=on", "resume=true"]) == wanted
    assert resume.newest_sweep_of(tmp_path, ["-m", "ipex=maybe"]) is None


def test_results_of_a_cell_whose_facts_changed_are_told_from_its_own_and_others(tmp_path: Path) -> None:
    before = PlannedCell(config_of(CELL), (), FACTS)
    now = PlannedCell(config_of(CELL), (), {**FACTS, "kernel": "6.2"})
    other = PlannedCell(config_of(replace(CELL, seed=9)), (), FACTS)
    ledger.add_cells(tmp_path, [planned.entry for planned in (before, other, now)])
    assert resume.stale_results(resume.by_key(ledger.read_cells(tmp_path)), now) == {
        before.cell_id: ["kernel 6.1 -> 6.2"]
    }
    assert ledger.read_cell(tmp_path, now.cell_id).key == CELL.key
    (tmp_path / "cells" / before.cell_id / ledger.CELL_FILE).write_text('{"key": 1}')
    assert resume.stale_results(resume.by_key(ledger.read_cells(tmp_path)), now) == {}


# -- whole sweeps -------------------------------------------------------------------------------------

SMALL = (
    "model=tiny", "batch_size=2", "warmup=2", "iterations=20", "capture=[]", "reruns=0", "rounds=2", "try_models=false",
)  # fmt: skip


def open_runs(mlruns: Path) -> list[str]:
    """Names of MLflow's runs that are RUNNING."""
    runs = MlflowClient(tracking_uri=Store(mlruns).uri).search_runs(["1"], "attributes.status = 'RUNNING'")
    return [str(run.info.run_name) for run in runs]


def second_job(mlruns: Path, runner: int) -> list[int]:
    """The worker of a sweep's second job, once that has been started; the first one's files are all there."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        started = list((mlruns / "sweeps").glob("*/cells/*/round-*/launch.json"))
        running = processes_with_marker(f"{runner}.", is_prefix=True)
        workers = [pid for pid in running if b"worker/__main__.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        if len(started) == 2 and workers:
            return workers[-1:]
        time.sleep(0.05)
    raise AssertionError("no second job was started")


@pytest.mark.slow
def test_a_killed_sweep_leaves_nothing_running_and_goes_on_with_nothing_lost_doubled_or_left_open(
    tmp_path: Path,
) -> None:
    words = ["-m", "launcher=none,xeon", *SMALL, f"mlruns={tmp_path}"]
    runner = subprocess.Popen(
        [sys.executable, "-m", "runner", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert runner.stdout is not None
    for said in runner.stdout:
        if said.startswith("[2/4]"):
            break
    [worker] = second_job(tmp_path, runner.pid)
    runner.kill()
    runner.wait()
    runner.stdout.close()
    deadline = time.monotonic() + 10
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)
    [sweep] = (tmp_path / "sweeps").iterdir()
    [first] = sweep.glob(f"cells/*/round-*/{OUTCOME_FILE}")
    measured = first.with_name("result.json").read_bytes()

    # Another sweep finds and names it; what it left RUNNING is closed.
    other = ask(*SMALL, "rounds=1", "launcher=none", f"mlruns={tmp_path}")
    assert f"sweep {sweep.name} was killed; to go on with it: python -m runner resume {sweep.name}" in other.out
    assert open_runs(tmp_path) == []

    ran = ask("resume", sweep.name, "--mlruns", str(tmp_path))
    assert ran.status == 0, ran.out + ran.err
    assert "1 job had ended before" in ran.out
    assert first.with_name("result.json").read_bytes() == measured
    client = MlflowClient(tracking_uri=Store(tmp_path).uri)
    runs = client.search_runs(["1"], f"tags.sweep_id = '{sweep.name}'")
    assert sorted(run.data.tags["kind"] for run in runs) == ["cell", "cell", "sweep"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        if run.data.tags["kind"] == "cell":
            assert run.data.metrics["latency/processes"] == 2
            kept = {item.path for item in client.list_artifacts(run.info.run_id, "logs")}
            assert kept == {"logs/round-0", "logs/round-1"}

    again = ask("resume", sweep.name, "--mlruns", str(tmp_path))
    assert again.status == 0, again.out + again.err
    assert "4 jobs had ended before" in again.out

    changed = ask("resume", sweep.name, "--mlruns", str(tmp_path), env={"LD_LIBRARY_PATH": "/nowhere"})
    assert changed.status == 0, changed.out + changed.err
    assert "measuring again: launcher=none (LD_LIBRARY_PATH - -> /nowhere; the earlier result " in changed.out
    assert "had ended before" not in changed.out


@pytest.mark.slow
def test_a_failed_job_is_tried_again_as_often_as_asked_and_every_attempt_is_kept(tmp_path: Path) -> None:
    once = ["model._target_=misbehaving.fails_once", f"+model.kwargs.mark={tmp_path / 'mark'}"]
    ran = ask(*SMALL, *once, "rounds=1", "retries=1", "launcher=none", f"mlruns={tmp_path}", env=MODELS)
    assert ran.status == 0, ran.out + ran.err
    assert "FAILED (the worker failed: " in ran.out
    assert "tried again 1 of 1" in ran.out
    [record] = records_of(ran)
    assert [outcome.attempts for outcome in record.outcomes] == [2]
    assert "not this time" in (job_folder(ran.sweep, record.cell_id, 0) / "attempt-1" / "stderr.log").read_text()


@pytest.mark.slow
def test_an_interrupted_sweep_says_how_to_go_on_and_resume_true_does(tmp_path: Path) -> None:
    words = [*SMALL, "launcher=none", f"mlruns={tmp_path}"]
    runner = subprocess.Popen([sys.executable, "-m", "runner", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert runner.stdout is not None
    for said in runner.stdout:
        if said.startswith("[2/2]"):
            break
    [worker] = second_job(tmp_path, runner.pid)
    os.kill(runner.pid, signal.SIGINT)
    rest = runner.stdout.read()
    assert runner.wait(60) == 130
    runner.stdout.close()
    assert not alive(worker)
    [sweep] = (tmp_path / "sweeps").iterdir()
    assert open_runs(tmp_path) == []
    assert f"To go on: python -m runner resume {sweep.name}" in " ".join(rest.split())
    # What the first round measured is in the table, the report and MLflow.
    assert "no other cell was measured that it can be compared with" in rest
    assert (sweep / "report.html").exists()
    client = MlflowClient(tracking_uri=Store(tmp_path).uri)
    [cell] = client.search_runs(["1"], f"tags.sweep_id = '{sweep.name}' and tags.kind = 'cell'")
    assert (cell.info.status, cell.data.metrics["latency/processes"]) == ("KILLED", 1)
    ran = ask(*words, "resume=true")
    assert ran.status == 0, ran.out + ran.err
    assert ran.sweep == sweep
    assert "1 job had ended before" in ran.out
    assert json.loads((sweep / "plan.json").read_text())["sweep_id"] == sweep.name


def test_resume_speaks_of_itself(tmp_path: Path) -> None:
    said = ask("resume", "--help")
    assert said.status == 0
    assert "a cell whose inputs changed" in " ".join(said.out.split())
    refused = ask("resume", "--mlruns", str(tmp_path))
    assert refused.status == 2
    assert "there is no sweep in this folder; run one first" in refused.err
