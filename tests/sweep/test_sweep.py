"""Whole sweeps through the real launchers on the tiny model, looked at from outside: files, MLflow, processes."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from runner.protocol.stopping import relative_width
from runner.results.outcome import job_folder, read_cell
from runner.tracking.store import Store
from tests.conftest import ROOT, TINY, Ran, Runner, alive, invoke, records_of

pytestmark = pytest.mark.slow

MODELS = {"PYTHONPATH": str(ROOT / "tests/models")}


def runs_of(mlruns: Path, sweep: Path) -> tuple[MlflowClient, Run, list[Run]]:
    """(client, parent run, child runs) of a sweep."""
    client = MlflowClient(tracking_uri=Store(mlruns).uri)
    every = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = list(client.search_runs(every, f"tags.sweep_id = '{sweep.name}'"))
    parent = next(run for run in runs if run.data.tags["kind"] == "sweep")
    return client, parent, [run for run in runs if run.data.tags["kind"] == "cell"]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def only_job(ran: Ran) -> Path:
    """Folder of the single job of a sweep."""
    [cell] = (ran.sweep / "cells").iterdir()
    return job_folder(ran.sweep, cell.name, 0)


# -- the main job -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def main_job(run_cli: Runner) -> Ran:
    return run_cli("-m", "allocator=ptmalloc,jemalloc", "ipex=off,on", *TINY, "rounds=2")


def test_the_main_job_finishes_with_evidence_for_every_cell(main_job: Ran, mlruns: Path) -> None:
    assert main_job.status == 0, main_job.out + main_job.err
    _, parent, cells = runs_of(mlruns, main_job.sweep)
    assert parent.info.status == "FINISHED"
    assert len(cells) == 4
    for run in cells:
        assert run.info.status == "FINISHED"
        assert run.data.tags["evidence"] == "ok"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.metrics["latency/p50_ms"] > 0
        assert run.data.metrics["latency/processes"] == 2
        assert run.data.metrics["cost/log_s"] < 3
    assert {(r.data.params["allocator"], r.data.params["ipex"]) for r in cells} == {
        ("ptmalloc", "off"), ("ptmalloc", "on"), ("jemalloc", "off"), ("jemalloc", "on"),
    }  # fmt: skip


def test_explain_sets_two_of_its_cells_side_by_side(main_job: Ran, mlruns: Path) -> None:
    said = invoke(["explain", "slowest", "fastest", "--mlruns", str(mlruns), "--sweep", main_job.sweep.name])
    assert said.status == 0, said.err
    assert "95 % interval" in said.out
    assert "operator, own time (by ITT)" in said.out


def test_params_are_the_axes_and_nothing_else(main_job: Ran, mlruns: Path) -> None:
    for run in runs_of(mlruns, main_job.sweep)[2]:
        assert set(run.data.params) == {
            "model", "scenario", "load",
            "allocator", "ipex", "memory_format", "precision", "graph", "launcher", "openmp", "batch_size",
            "sequence_length", "instances", "cores_per_instance", "cores", "threads", "node", "twin",
        }  # fmt: skip


def test_in_jemalloc_cells_jemalloc_owns_malloc_and_in_the_others_glibc(main_job: Ran) -> None:
    for (allocator, ipex), record in main_job.cells().items():
        for result in record.results.values():
            assert result.evidence is not None
            owner = Path(str(result.evidence.allocator.malloc)).name
            assert owner.startswith("libjemalloc" if allocator == "jemalloc" else "libc.")
            assert result.evidence.ipex.imported == (ipex == "on")


def test_each_run_keeps_what_is_needed_to_understand_and_repeat_it(main_job: Ran, mlruns: Path) -> None:
    client, parent, cells = runs_of(mlruns, main_job.sweep)
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} >= {
        "host.json", "plan.json", "experiment.yaml", "comparison.csv", "comparison.png", "cells.parquet",
    }  # fmt: skip
    run = cells[0]
    top = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert top == {"latencies.parquet", "evidence.json", "config.yaml", "logs", "onednn", "itt", "profiler"}
    logs = {Path(item.path).name for item in client.list_artifacts(run.info.run_id, "logs/round-1")}
    assert logs >= {"stdout.log", "stderr.log", "launch.json", "job.json", "result.json", "outcome.json"}
    assert run.data.tags["command"].startswith("python -m runner -m ")
    assert re.fullmatch(r"[0-9a-f]{40}", run.data.tags["git.commit"])


def test_samples_are_kept_one_row_an_iteration_of_every_process(main_job: Ran, mlruns: Path) -> None:
    client, _, cells = runs_of(mlruns, main_job.sweep)
    table = pq.read_table(client.download_artifacts(cells[0].info.run_id, "latencies.parquet"))
    assert table.column_names == ["round", "process", "i", "latency_s"]
    assert table.num_rows == 40
    assert set(table["round"].to_pylist()) == {0, 1}


def test_rounds_visit_every_cell_once_in_an_order_of_their_own(main_job: Ran) -> None:
    plan = read(main_job.sweep / "plan.json")
    order = [(job["round"], job["cell_id"]) for job in plan["order"]]
    assert len(set(order)) == 8
    assert [number for number, _ in order] == [0] * 4 + [1] * 4


def test_auto_goes_on_with_what_is_undecided_and_stops_within_its_budget(run_cli: Runner, mlruns: Path) -> None:
    # Two cells that are equal: that they are told apart at the first look is out of the question, nearly.
    start = time.monotonic()
    ran = run_cli(
        "-m", "launcher=none,xeon", *TINY, "rounds=auto", "budget_min=1", "smallest_pct=0.001", "capture=[]"
    )  # fmt: skip
    took_s = time.monotonic() - start
    assert ran.status == 0, ran.out + ran.err
    assert "2 cells x 3 to 20 rounds, at most 1 min 00 s" in ran.out
    assert "undecided: rounds 4 to 5 for 2 cells" in ran.out
    assert "budget_min=1: the next job would end after it" in ran.out or "undecided (<" not in ran.out
    assert took_s < 60 + 30  # start and end of the sweep are no jobs
    for run in runs_of(mlruns, ran.sweep)[2]:
        assert run.info.status == "FINISHED"
        assert run.data.metrics["latency/processes"] >= 3
    assert read(ran.sweep / "plan.json")["level"] == 0.01


def test_a_process_stops_when_its_median_is_known(run_cli: Runner) -> None:
    ran = run_cli("model=tiny", "rounds=1", "min_time_s=0.2", "max_time_s=60", "target_ci_pct=20", "capture=[]")
    assert ran.status == 0, ran.out + ran.err
    [record] = records_of(ran)
    [result] = record.results.values()
    assert result.window is not None
    assert 0.2 <= result.window.wall_s < 30
    assert 100 * (relative_width(result.latencies_s) or 99) < 25


def test_the_runner_used_less_than_a_hundredth_of_a_core_while_measuring(main_job: Ran, mlruns: Path) -> None:
    for record in main_job.cells().values():
        for result in record.results.values():
            assert result.window is not None
            assert result.window.runner_cpu_s is not None
            # The window of the tiny model is milliseconds long: a floor for the two reads of the clock.
            assert result.window.runner_cpu_s <= 0.01 * result.window.wall_s + 0.0005


def test_the_terminal_ends_with_the_table_and_links(main_job: Ran) -> None:
    tail = main_job.out[main_job.out.index("p50 ms") :]
    for word in ("ptmalloc", "jemalloc", "(baseline)", "ok", "runner ui --mlruns", "viewStateShareKey=sweep-"):
        assert word in tail
    assert main_job.out.count("left") >= 7


def test_every_link_leads_to_a_saved_view_that_has_its_cells(main_job: Ran, mlruns: Path) -> None:
    client, parent, cells = runs_of(mlruns, main_job.sweep)
    tags = client.get_experiment(parent.info.experiment_id).tags
    keys = re.findall(r"viewStateShareKey=([^& ]+)", main_job.out)
    name = f"sweep-{main_job.sweep.name}"
    assert keys == [name, f"{name}-charts", f"{name}-charts", "matrix"]  # every cell is right: no view of the rest
    for key in keys:
        packed = json.loads(tags[f"mlflow.sharedViewState.{key}"])["state"].removeprefix("deflate;")
        state = json.loads(zlib.decompress(base64.b64decode(packed)))
        found = client.search_runs([parent.info.experiment_id], state["searchFilter"])
        assert {cell.info.run_id for cell in cells} <= {run.info.run_id for run in found}
    assert {cell.info.run_name.split()[0] for cell in cells} == {"ptmalloc", "jemalloc"}


def test_nothing_is_left_in_the_temporary_folder(main_job: Ran) -> None:
    launches = [read(file) for file in main_job.sweep.glob("cells/*/round-*/launch.json")]
    folders = {launched["env"]["VIRTUAL_ENV"] for launched in launches}
    assert len(folders) == len(launches) == 8
    assert not [folder for folder in folders if Path(folder).exists()]


# -- proof and refusal --------------------------------------------------------------------------------


def test_a_callers_environment_does_not_leak_into_a_cell(run_cli: Runner) -> None:
    exported = {"LD_PRELOAD": "libtcmalloc.so.4", "OMP_NUM_THREADS": "1", "KMP_BLOCKTIME": "77"}
    ran = run_cli("allocator=jemalloc", *TINY, env=exported)
    assert ran.status == 0, ran.out + ran.err
    launched = read(only_job(ran) / "launch.json")
    assert exported.items() <= launched["scrubbed"].items()  # the machine may export more
    evidence = read(only_job(ran) / "evidence.json")
    assert "libjemalloc" in evidence["allocator"]["malloc"]
    assert evidence["openmp"]["torch_threads"] == launched["placement"]["threads"]
    assert "KMP_BLOCKTIME" not in evidence["environment"]


def test_under_taskset_the_sweep_stays_on_the_callers_core(run_cli: Runner) -> None:
    core = max(os.sched_getaffinity(0))
    ran = run_cli(*TINY, prefix=["taskset", "-c", str(core)])
    assert ran.status == 0, ran.out + ran.err
    assert read(only_job(ran) / "evidence.json")["affinity"]["allowed"] == [core]


def test_a_launcher_that_falls_back_fails_the_cell(run_cli: Runner, mlruns: Path) -> None:
    ran = run_cli("allocator=jemalloc", "allocator.launcher_value=default", *TINY)
    assert ran.status == 1
    _, parent, [cell] = runs_of(mlruns, ran.sweep)
    assert (parent.info.status, cell.info.status) == ("FAILED", "FAILED")
    assert cell.data.tags["evidence"] == "mismatch"
    assert "asked for malloc of jemalloc (jemalloc), found" in cell.data.tags["failure"]
    assert "latency/p50_ms" not in cell.data.metrics


def test_a_model_that_changes_the_thread_count_fails_the_cell(run_cli: Runner) -> None:
    ran = run_cli("model._target_=misbehaving.sets_threads", *TINY, env=MODELS)
    assert ran.status == 1
    assert "threads: asked for" in ran.out


def test_a_missing_library_fails_its_cell_before_launch_and_the_others_run(mlruns: Path) -> None:
    hide = (
        "import sys; from runner.launch import libraries; found = libraries.find; "
        "libraries.find = lambda stem, folders: None if stem == 'tcmalloc' else found(stem, folders); "
        "from runner.__main__ import main; sys.exit(main())"
    )
    words = ["-m", "allocator=tcmalloc,ptmalloc", *TINY, f"mlruns={mlruns}"]
    done = subprocess.run(
        [sys.executable, "-c", hide, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    ran = Ran(done.returncode, done.stdout, done.stderr)
    assert ran.status == 1
    assert "apt-get install libgoogle-perftools4" in ran.out
    cells = {run.data.params["allocator"]: run for run in runs_of(mlruns, ran.sweep)[2]}
    assert cells["ptmalloc"].info.status == "FINISHED"
    assert cells["tcmalloc"].info.status == "FAILED"
    assert "libtcmalloc.so is not in any of" in cells["tcmalloc"].data.tags["failure"]
    assert not (job_folder(ran.sweep, cells["tcmalloc"].data.tags["cell_id"], 0) / "launch.json").exists()


def test_rules_and_impossible_cells_are_excluded_with_their_reason(run_cli: Runner) -> None:
    ran = run_cli(
        "-m", "allocator=ptmalloc,tcmalloc", "cores=1,4096", "hydra.sweeper.exclude=[{allocator: tcmalloc}]", *TINY
    )
    assert ran.status == 0, ran.out + ran.err
    assert "excluded by the rule allocator=tcmalloc" in ran.out
    assert "cores=4096: node 0 has" in ran.out
    assert list(ran.cells()) == [("ptmalloc", "off")]


def test_include_adds_a_cell_to_the_matrix(run_cli: Runner) -> None:
    ran = run_cli("hydra.sweeper.include=[{allocator: tcmalloc}]", *TINY)
    assert ran.status == 0, ran.out + ran.err
    assert set(ran.cells()) == {("ptmalloc", "off"), ("tcmalloc", "off")}


@pytest.mark.parametrize("launcher", ["xeon", "none"])
def test_the_other_launchers_run_the_same_cell(run_cli: Runner, launcher: str) -> None:
    ran = run_cli(f"launcher={launcher}", "allocator=jemalloc_benchmark", "openmp=intel", *TINY)
    assert ran.status == 0, ran.out + ran.err
    evidence = read(only_job(ran) / "evidence.json")
    assert evidence["allocator"]["jemalloc"]["opt.dirty_decay_ms"] == -1
    assert "libiomp5" in evidence["openmp"]["owner"]


# -- failure ------------------------------------------------------------------------------------------

FAILURES = {
    "raises": "the worker failed: ValueError: no model of batch size 2",
    "killed": "killed by SIGKILL",
    "segfaults": "killed by SIGSEGV",
    "exits": "the worker left no result: exit status 0",
    "tears": "result.json can't be read: ",
    "comes_from_the_future": "result.json has format 99",
    "hangs": "timeout_s=25: the job was still running in <lambda> (misbehaving.py:32) and was stopped",
}


def test_every_kind_of_death_is_a_failed_cell_with_its_reason_and_the_others_finish(
    run_cli: Runner, mlruns: Path
) -> None:
    targets = ",".join(f"misbehaving.{name}" for name in FAILURES)
    ran = run_cli("-m", f"model._target_={targets},runner.worker.models.tiny", "timeout_s=25", *TINY, env=MODELS)
    assert ran.status == 1
    _, parent, cells = runs_of(mlruns, ran.sweep)
    assert parent.info.status == "FAILED"
    assert sorted(run.info.status for run in cells) == ["FAILED"] * len(FAILURES) + ["FINISHED"]
    reasons = [run.data.tags["failure"] for run in cells if run.info.status == "FAILED"]
    for sentence in FAILURES.values():
        assert sum(sentence in reason for reason in reasons) == 1, (sentence, reasons)


def started(mlruns: Path, iterations: str) -> tuple[subprocess.Popen[str], int]:
    """A sweep of one long job, and the pid of its worker once that is measuring."""
    words = ["-m", "runner", "model=tiny", "rounds=1", f"iterations={iterations}", f"mlruns={mlruns}"]
    runner = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                parent_chain = (entry / "environ").read_bytes()
                torch_loaded = b"libtorch_cpu" in (entry / "maps").read_bytes()
            except OSError:
                continue
            worker = any(word.endswith("worker/__main__.py") for word in words) and "python" in words[0]
            if worker and torch_loaded and b"RUNNER_JOB=" in parent_chain and str(mlruns) in words[-2]:
                time.sleep(1)
                return runner, int(entry.name)
        time.sleep(0.1)
    runner.kill()
    raise AssertionError("no worker appeared")


def test_a_worker_killed_from_outside_is_a_failed_cell(mlruns: Path) -> None:
    runner, worker = started(mlruns, "100000000")
    os.kill(worker, signal.SIGKILL)
    out, err = runner.communicate(timeout=60)
    ran = Ran(runner.returncode, out, err)
    assert ran.status == 1
    _, _, [cell] = runs_of(mlruns, ran.sweep)
    assert cell.info.status == "FAILED"
    assert "killed by SIGKILL" in cell.data.tags["failure"]


def test_no_worker_outlives_a_runner_that_is_killed(mlruns: Path) -> None:
    runner, worker = started(mlruns, "100000000")
    runner.kill()
    runner.communicate(timeout=60)
    deadline = time.monotonic() + 10
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_leaves_nothing_running_and_no_run_open(mlruns: Path, number: signal.Signals) -> None:
    runner, worker = started(mlruns, "100000000")
    runner.send_signal(number)
    out, err = runner.communicate(timeout=60)
    assert runner.returncode == 130, out + err
    assert not alive(worker)
    _, parent, cells = runs_of(mlruns, Ran(130, out, err).sweep)
    assert {run.info.status for run in [parent, *cells]} == {"KILLED"}


# -- every axis does what it says, and is caught when it does not ------------------------------------


# model of tests/models/misbehaving.py -> the cell it spoils, and what is said of it
SPOILED = {
    "ipex_does_nothing": (("ipex=on",), "ipex: asked for on, found 0 modules replaced"),
    "stays_fp32": (("precision=bf16",), "precision: asked for"),
    "is_not_compiled": (("graph=compile", "memory_format=channels_last"), "graph: asked for compile, found eager"),
    "falls_back_to_eager": (("graph=compile", "memory_format=channels_last"), "graph: asked for compile"),
    "loses_channels_last": (("memory_format=channels_last",), "memory_format: asked for activations channels_last"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_a_transformation_that_does_nothing_fails_the_cell_by_axis(run_cli: Runner, name: str) -> None:
    cell, sentence = SPOILED[name]
    ran = run_cli(f"model._target_=misbehaving.{name}", *cell, *TINY, env=MODELS)
    assert ran.status == 1, ran.out + ran.err
    assert sentence in ran.out


@pytest.mark.parametrize(
    ("name", "cell", "why"),
    [
        ("perturbed", (), "rel_l2"),
        ("makes_nan", (), "nan or inf"),
        ("uncalibrated", ("precision=int8", "memory_format=channels_last"), "rel_l2"),
    ],
)
def test_a_wrong_output_is_marked_and_never_wins(
    run_cli: Runner, mlruns: Path, name: str, cell: tuple[str, ...], why: str
) -> None:
    targets = f"model._target_=runner.worker.models.tiny,misbehaving.{name}"
    ran = run_cli("-m", targets, *cell, *TINY, env=MODELS)
    assert ran.status == 0, ran.out + ran.err
    assert "WRONG output" in ran.out
    _, _, runs = runs_of(mlruns, ran.sweep)
    quality = {run.data.tags["setting.model._target_"]: run.data.tags["quality"] for run in runs}
    assert quality["runner.worker.models.tiny"] == "ok"
    assert why in quality[f"misbehaving.{name}"]
    ranked = {run.data.tags["setting.model._target_"]: run.data.tags["ranked"] for run in runs}
    assert ranked == {"runner.worker.models.tiny": "yes", f"misbehaving.{name}": "no"}
    assert f"viewStateShareKey=sweep-{ran.sweep.name}-rest" in ran.out
    table = [line.split()[0] for line in ran.out.splitlines() if re.match(r" (runner|misbehaving)\.", line)]
    assert table == ["runner.worker.models.tiny", f"misbehaving.{name}"]


def test_instances_run_side_by_side_on_cores_of_their_own(run_cli: Runner) -> None:
    ran = run_cli("-m", "instances=2", "launcher=ipexrun,xeon", "threads=1", *TINY)
    assert ran.status == 0, ran.out + ran.err
    for folder in (ran.sweep / "cells").iterdir():
        results = [read(job_folder(ran.sweep, folder.name, 0) / f"result-{i}.json") for i in range(2)]
        assert [result["evidence"]["affinity"]["allowed"] for result in results] == [[0], [1]]
        assert all(len(result["latencies_s"]) == 20 for result in results)


def test_the_documented_model_of_ones_own_runs_as_documented(run_cli: Runner, tmp_path: Path) -> None:
    text = (ROOT / "docs/your_model.md").read_text()
    blocks = dict(re.findall(r"```(python|yaml|sh)\n(.*?)```", text, re.S))
    (tmp_path / "model").mkdir()
    (tmp_path / "acme_ranker.py").write_text(blocks["python"])
    (tmp_path / "model/acme_ranker.yaml").write_text(blocks["yaml"])
    words = re.search(r"python -m runner (.*)", blocks["sh"].replace("my_models", str(tmp_path)))
    assert words
    ran = run_cli(*words[1].split(), "iterations=5", "rounds=1", env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert ran.status == 0, ran.out + ran.err
    records = [read_cell(ran.sweep, folder.name) for folder in (ran.sweep / "cells").iterdir()]
    assert len(records) == 4
    assert all(record is not None and record.quality == "ok" for record in records)


@pytest.mark.parametrize("model", ["bert_base_uncased", "vit_base"])
def test_a_transformer_of_two_layers_runs_in_bf16_as_a_graph(run_cli: Runner, model: str) -> None:
    small = ("+model.kwargs.num_hidden_layers=2", "batch_size=1", "iterations=3", "warmup=2", "rounds=1")
    ran = run_cli(f"model={model}", "precision=bf16", "graph=torchscript", *small)
    assert ran.status == 0, ran.out + ran.err


# -- what is in git runs ------------------------------------------------------------------------------


IN_A_LOOP = [
    file
    for file in sorted((ROOT / "experiments/experiment").glob("*.yaml"))
    if not file.stem.startswith("torchserve")  # those are run in test_torchserve.py
]


@pytest.mark.parametrize("file", IN_A_LOOP, ids=lambda file: file.stem)
def test_each_experiment_runs_on_a_tiny_workload(run_cli: Runner, file: Path) -> None:
    # IPEX's import takes ten seconds a job and a compilation as long: smoke has one cell of each.
    small = ["model=tiny", "batch_size=2", "warmup=1", "iterations=3", "rounds=1"]
    if file.stem != "smoke":
        small += ["ipex=off"] if file.stem not in ("graph_conv_relu", "operator_conv_relu") else []
        small += ["graph=eager,torchscript"] if "headline" in file.stem else []
    ran = run_cli("-m", f"+experiment={file.stem}", *small)
    assert ran.status == 0, ran.out + ran.err
    assert all(record.evidence == "ok" for record in ran.cells().values())
    if "expect:" in file.read_text():
        assert "tutorial" in ran.out
        assert "| here " in ran.out


def test_smoke_has_every_value_of_every_axis() -> None:
    text = (ROOT / "experiments/experiment/smoke.yaml").read_text()
    for axis in ("allocator", "ipex", "memory_format", "precision", "graph", "launcher"):
        for file in (ROOT / "conf" / axis).glob("*.yaml"):
            first = file.stem in ("ptmalloc", "off", "channels_first", "fp32", "eager", "auto", "ipexrun")
            assert first or f"{axis}: {file.stem}" in text, (axis, file.stem)
