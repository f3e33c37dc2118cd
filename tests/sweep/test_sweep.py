"""Whole sweeps through the real launchers on the tiny model, looked at from outside: files, MLflow, processes."""

from __future__ import annotations

import base64
import contextlib
import csv
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from runner.machine.host import isa, read_topology
from runner.protocol.stopping import relative_width
from runner.protocol.verdicts import Status
from runner.results import ledger
from runner.results.outcome import job_folder
from runner.sweep.rounds import LEVEL_OF_LOOK
from runner.tracking.store import Store
from tests.conftest import EXPORTED, MODELS, ROOT, TINY, Ran, Runner, alive, ask, records_of

pytestmark = pytest.mark.slow


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
    assert min(run.data.metrics["cost/log_s"] for run in cells) < 3
    assert {(r.data.params["allocator"], r.data.params["ipex"]) for r in cells} == {
        ("ptmalloc", "off"), ("ptmalloc", "on"), ("jemalloc", "off"), ("jemalloc", "on"),
    }  # fmt: skip


def test_explain_sets_two_of_its_cells_side_by_side(main_job: Ran, mlruns: Path) -> None:
    said = ask("explain", "slowest", "fastest", "--mlruns", str(mlruns), "--sweep", main_job.sweep.name)
    assert said.status == 0, said.err
    assert "95 % interval" in said.out
    # Whether the captures of so short an iteration are like the timed ones is luck: the figures are there in any case.
    assert "faults/minor_per_iteration" in said.out
    assert said.out.splitlines()[-1].startswith("B is ")


def test_params_are_the_axes_and_nothing_else(main_job: Ran, mlruns: Path) -> None:
    for run in runs_of(mlruns, main_job.sweep)[2]:
        assert set(run.data.params) == {
            "model", "torch", "scenario", "load",
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


# Equal cells, also where others use the machine: a launcher that binds threads to cores would then be slower.
AUTO = ("-m", "launcher=none", "model=tiny", "warmup=3,4", "iterations=20", "capture=[]")


def test_auto_goes_on_with_what_is_undecided(mlruns: Path) -> None:
    # No difference is too small to be looked for.
    words = [*AUTO, "smallest_pct=0.001", "reruns=0", f"mlruns={mlruns}"]
    runner = subprocess.Popen(
        [sys.executable, "-m", "runner", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert runner.stdout is not None
    heard = []
    for line in runner.stdout:
        heard.append(line)
        if "undecided: " in line:
            break
    runner.send_signal(signal.SIGINT)
    heard.append(runner.communicate(timeout=60)[0])
    out = "".join(heard)
    assert runner.returncode == 130, out
    assert "2 cells x 3 rounds, then up to 20 within 8 min 00 s for those that can't be told apart" in out
    assert "undecided: rounds 4 to 5 for 2 cells" in out
    ran = Ran(runner.returncode, out, "")
    assert [len(record.outcomes) for record in records_of(ran)] == [3, 3]
    assert read(ran.sweep / "plan.json")["level"] == LEVEL_OF_LOOK


def test_auto_stops_within_its_budget(run_cli: Runner, mlruns: Path) -> None:
    ran = run_cli(*AUTO, "budget_min=0.001", "smallest_pct=0.001")
    assert ran.status == 0, ran.out + ran.err
    assert "budget_min=0.001: the next job would end after it" in ran.out
    assert [len(record.outcomes) for record in records_of(ran)] == [3, 3]  # what every cell is promised


def test_a_process_stops_when_its_median_is_known(lone_core: Ran) -> None:
    assert lone_core.status == 0, lone_core.out + lone_core.err
    [record] = records_of(lone_core)
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
    for word in ("ptmalloc", "jemalloc", "baseline", "report.html", "runner ui --mlruns", "viewStateShareKey="):
        assert word in tail
    assert main_job.out.count("left") >= 7


def test_every_link_leads_to_a_saved_view_that_has_its_cells(main_job: Ran, mlruns: Path) -> None:
    client, parent, cells = runs_of(mlruns, main_job.sweep)
    tags = client.get_experiment(parent.info.experiment_id).tags
    keys = re.findall(r"viewStateShareKey=([^&\s]+)", main_job.out)
    name = main_job.sweep.name
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


def test_a_callers_environment_does_not_leak_into_a_cell(main_job: Ran) -> None:
    for record in records_of(main_job):
        job = job_folder(main_job.sweep, record.cell_id, 0)
        launched, evidence = read(job / "launch.json"), read(job / "evidence.json")
        assert EXPORTED.items() <= launched["scrubbed"].items()  # the machine may export more
        assert evidence["openmp"]["torch_threads"] == launched["placement"]["threads"]
        assert not evidence["environment"].keys() & EXPORTED.keys() - {"LD_PRELOAD", "OMP_NUM_THREADS"}
        assert "tcmalloc" not in evidence["allocator"]["malloc"]


def test_under_taskset_the_sweep_stays_on_the_callers_core(lone_core: Ran) -> None:
    assert read(only_job(lone_core) / "evidence.json")["affinity"]["allowed"] == [max(os.sched_getaffinity(0))]


@pytest.fixture(scope="module")
def ruled(mlruns: Path) -> Ran:
    """A matrix with rules, with cells that this machine can't run, and without the library of one cell."""
    hide = (
        "import sys; from runner.launch import libraries; found = libraries.find; "
        "libraries.find = lambda stem, folders: None if stem == 'tcmalloc' else found(stem, folders); "
        "from runner.__main__ import main; sys.exit(main())"
    )
    words = (
        "-m", "allocator=tcmalloc,ptmalloc,ptmalloc_tuned", "cores=1,4096",
        "hydra.sweeper.exclude=[{allocator: ptmalloc_tuned}]", "hydra.sweeper.include=[{allocator: jemalloc}]",
        *TINY, "capture=[]", "reruns=0", f"mlruns={mlruns}",
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", hide, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_missing_library_fails_its_cell_before_launch_and_the_others_run(ruled: Ran, mlruns: Path) -> None:
    assert ruled.status == 1
    assert "apt-get install libgoogle-perftools4" in ruled.out
    cells = {run.data.params["allocator"]: run for run in runs_of(mlruns, ruled.sweep)[2]}
    assert cells["ptmalloc"].info.status == "FINISHED"
    assert cells["tcmalloc"].info.status == "FAILED"
    assert "libtcmalloc.so is not in any of" in cells["tcmalloc"].data.tags["failure"]
    assert not (job_folder(ruled.sweep, cells["tcmalloc"].data.tags["cell_id"], 0) / "launch.json").exists()


def test_rules_and_impossible_cells_are_excluded_with_their_reason_and_included_cells_come_last(ruled: Ran) -> None:
    assert "excluded by the rule allocator=ptmalloc_tuned" in ruled.out
    assert "cores=4096: node 0 has" in ruled.out
    assert [cell["axes"]["allocator"] for cell in read(ruled.sweep / "plan.json")["cells"]] == ["ptmalloc", "jemalloc"]
    assert set(ruled.cells()) == {("tcmalloc", "off"), ("ptmalloc", "off"), ("jemalloc", "off")}


@pytest.fixture(scope="module")
def launched(run_cli: Runner) -> Ran:
    """The same cell under the other launchers, and two instances of it where there are two cores."""
    two = "{launcher: [ipexrun, xeon], instances: 2, cores: 2, threads: 1}"
    ran = run_cli(
        "-m", "launcher=xeon,none", "allocator=jemalloc_benchmark", "openmp=intel", *TINY, "capture=[]",
        f"hydra.sweeper.include=[{two}]",
    )  # fmt: skip
    assert ran.status == 0, ran.out + ran.err
    return ran


def test_the_other_launchers_run_the_same_cell(launched: Ran) -> None:
    alone = [record for record in records_of(launched) if record.axes["instances"] == "1"]
    assert {record.axes["launcher"] for record in alone} == {"xeon", "none"}
    for record in alone:
        evidence = read(job_folder(launched.sweep, record.cell_id, 0) / "evidence.json")
        assert evidence["allocator"]["jemalloc"]["opt.dirty_decay_ms"] == -1
        assert "libiomp5" in evidence["openmp"]["owner"]


def test_instances_run_side_by_side_on_cores_of_their_own(launched: Ran) -> None:
    topology = read_topology()
    cores = next(cores for cores in map(topology.physical_cores, topology.nodes()) if cores)[:2]
    if len(cores) < 2:
        pytest.skip("two instances need two physical cores of a node")
    pairs = [record for record in records_of(launched) if record.axes["instances"] == "2"]
    assert {record.axes["launcher"] for record in pairs} == {"ipexrun", "xeon"}
    for record in pairs:
        results = [read(job_folder(launched.sweep, record.cell_id, 0) / f"result-{i}.json") for i in range(2)]
        assert [result["evidence"]["affinity"]["allowed"] for result in results] == [[core] for core in cores]
        assert all(len(result["latencies_s"]) == 20 for result in results)


# -- failure ------------------------------------------------------------------------------------------

# fault of tests/models/misbehaving.py, or of the launcher -> what its FAILED cell says
FAILURES = {
    ("raises", "ptmalloc"): "the worker failed: ValueError: no model of batch size 2",
    ("killed", "ptmalloc"): "killed by SIGKILL",
    ("segfaults", "ptmalloc"): "killed by SIGSEGV",
    ("exits", "ptmalloc"): "the worker left no result: exit status 0",
    ("tears", "ptmalloc"): "result.json can't be read: ",
    ("comes_from_the_future", "ptmalloc"): "result.json has format 99",
    # Every axis does what it says, and is caught when it does not.
    ("sets_threads", "ptmalloc"): "threads: asked for",
    ("behaves", "jemalloc"): "asked for malloc of jemalloc (jemalloc), found",
    ("ipex_does_nothing", "ptmalloc"): "ipex: asked for on, found 0 modules replaced",
    ("stays_fp32", "ptmalloc"): "precision: asked for",
    ("autocasts_nothing", "ptmalloc"): "precision: asked for bfloat16 arithmetic, found 100% float32",
    ("quantizes_nothing", "ptmalloc"): "asked for layers quantized for int8_dynamic (1 in the model), found none by",
    ("packs_no_weights", "ptmalloc"): "asked for layers quantized for int8_weight (1 in the model), found none by",
    ("observes_nothing", "ptmalloc"): "asked for layers quantized for int8 (3 in the model), found none by",
    ("is_not_compiled", "ptmalloc"): "graph: asked for compile, found eager",
    ("falls_back_to_eager", "ptmalloc"): "graph: asked for compile, found no compiled region ran",
    ("freezes_nothing", "ptmalloc"): "graph: asked for code whose weights are constants (compile_freezing), found no",
    ("freezes_unasked", "ptmalloc"): "graph: asked for code whose weights are no constants (compile), found weights",
    ("compiles_again", "ptmalloc"): "graph: asked for graphs that are made before the timed loop, found 1 compiled",
    ("is_no_package", "ptmalloc"): "graph: asked for aot, found eager",
    ("loses_channels_last", "ptmalloc"): "memory_format: asked for activations channels_last",
    ("channels_last_weights", "ptmalloc"): "memory_format: asked for weights channels_first, found channels_last",
    # What is timed is what is right.
    ("remembers", "ptmalloc"): "work: asked for the model's arithmetic",
    ("remembers_most", "ptmalloc"): "work: asked for the model's arithmetic",
    ("answers_late", "ptmalloc"): "RuntimeError: the output changed after forward() had returned",
    ("promises", "ptmalloc"): "TypeError: forward() returned a Future",
}
WRONG = {
    "perturbed": "rel_l2",
    "makes_nan": "nan or inf",
    "uncalibrated": "rel_l2",
    "gives_up": "in the last timed iteration, input set 2",
    "hides_its_scores": "of output['scores'] in ",
    "branches": "input set 2",
}

# IPEX packs no weights on other CPUs, so that the matrix leaves these cells out.
NEEDS_AVX512 = {("packs_no_weights", "ptmalloc")}


def test_every_fault_is_a_failed_cell_with_its_reason_and_the_others_finish(faults: Ran, mlruns: Path) -> None:
    assert faults.status == 1
    _, parent, cells = runs_of(mlruns, faults.sweep)
    assert parent.info.status == "FAILED"
    failed = {
        (run.data.params["twin"], run.data.params["allocator"]): run for run in cells if run.info.status == "FAILED"
    }
    excluded = set() if "avx512bw" in isa() else NEEDS_AVX512
    assert failed.keys() == FAILURES.keys() - excluded
    for fault, run in failed.items():
        assert FAILURES[fault] in run.data.tags["failure"]
        assert "latency/p50_ms" not in failed[fault].data.metrics
    assert failed["behaves", "jemalloc"].data.tags["evidence"] == "mismatch"
    assert len(cells) == len(FAILURES) - len(excluded) + len(WRONG) + 1


def test_a_wrong_output_is_marked_and_never_wins(faults: Ran, mlruns: Path) -> None:
    _, _, cells = runs_of(mlruns, faults.sweep)
    finished = {run.data.params["twin"]: run.data.tags for run in cells if run.info.status == "FINISHED"}
    assert finished.keys() == {"behaves", *WRONG}
    assert (finished["behaves"]["quality"], finished["behaves"]["ranked"]) == ("ok", "yes")
    for fault, why in WRONG.items():
        assert why in finished[fault]["quality"]
        assert finished[fault]["ranked"] == "no"
    assert faults.out.count("note: WRONG output of ") == len(WRONG)
    assert "TracerWarning" in finished["branches"]["notes"]
    assert "the trace keeps what the example inputs chose at misbehaving.py:" in faults.out
    assert f"viewStateShareKey={faults.sweep.name}-rest" in faults.out
    assert faults.out.count("  WRONG output") >= len(WRONG)
    with (faults.sweep / "comparison.csv").open(newline="") as file:
        ranked = [row["twin"] for row in csv.DictReader(file) if row["rank"]]
    assert ranked == ["behaves"]


def test_a_job_that_hangs_is_stopped_and_says_where_it_was(run_cli: Runner) -> None:
    ran = run_cli("model._target_=misbehaving.hangs", *TINY, "timeout_s=15", "capture=[]", env=MODELS)
    assert ran.status == 1
    [record] = records_of(ran)
    assert re.search(
        r"timeout_s=15: the job was still running in <lambda> \(misbehaving.py:\d+\) and was stopped",
        str(record.failure),
    )


@contextlib.contextmanager
def measuring(mlruns: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A sweep of one job without an end, and the pid of its worker once that runs the model."""
    words = ["-m", "runner", *TINY, "capture=[]", "iterations=100000000", f"mlruns={mlruns}"]
    words += ["model._target_=misbehaving.marks_its_start", f"+model.kwargs.mark={mlruns / secrets.token_hex(4)}"]
    mark = Path(words[-1].partition("=")[2])
    runner = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env={**os.environ, **MODELS}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not mark.exists() or not mark.read_text():
            assert time.monotonic() < deadline, "no worker appeared"
            time.sleep(0.05)
        yield runner, int(mark.read_text())
    finally:
        runner.kill()
        runner.communicate()


def test_a_worker_killed_from_outside_is_a_failed_cell(mlruns: Path) -> None:
    with measuring(mlruns) as (runner, worker):
        os.kill(worker, signal.SIGKILL)
        out, err = runner.communicate(timeout=60)
    ran = Ran(runner.returncode, out, err)
    assert ran.status == 1
    _, _, [cell] = runs_of(mlruns, ran.sweep)
    assert cell.info.status == "FAILED"
    assert "killed by SIGKILL" in cell.data.tags["failure"]


# An interrupt from the keyboard (SIGINT) is in test_resume.py.
def test_a_terminated_sweep_leaves_nothing_running_and_no_run_open(mlruns: Path) -> None:
    with measuring(mlruns) as (runner, worker):
        runner.send_signal(signal.SIGTERM)
        out, err = runner.communicate(timeout=60)
    assert runner.returncode == 130, out + err
    assert not alive(worker)
    _, parent, cells = runs_of(mlruns, Ran(130, out, err).sweep)
    assert {run.info.status for run in [parent, *cells]} == {"KILLED"}


# A signal is answered wherever the program is: inside OmegaConf it came out as an error of OmegaConf's.
_STOPPED_INSIDE_A_LIBRARY = """
import os, signal, sys
from runner.sweep import loop

def read_job(*arguments):
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    except KeyboardInterrupt:
        raise ValueError("an error of a library") from None

loop.read_job = read_job
from runner.__main__ import main
sys.exit(main())
"""


def test_a_sweep_that_is_stopped_inside_a_library_is_stopped_and_has_not_failed(tmp_path: Path) -> None:
    words = ["-m", "model=tiny", "rounds=2", "launcher=none", "try_models=false", f"mlruns={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-c", _STOPPED_INSIDE_A_LIBRARY, *words],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 130, done.stdout + done.stderr
    assert "To go on: python -m runner resume" in done.stdout.replace("\n", " ")
    [sweep] = (tmp_path / "sweeps").iterdir()
    end = ledger.read_end(sweep)
    assert end is not None
    assert end.status == Status.KILLED
