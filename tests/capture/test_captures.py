"""Captures through the real launcher: what they leave on a cell, and that none of them can cost a job its result."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from runner.capture import itt, probe, toplev
from runner.capture.tables import read_table
from runner.capture.toplev import LEVEL1
from runner.protocol.captures import Captures
from runner.protocol.jobfile import read_spec
from runner.protocol.resultfile import read_captures
from runner.results.metrics import cell_metrics
from runner.results.outcome import CellRecord, captures_folder, captures_job, job_folder
from tests.conftest import MODELS, ROOT, TINY, Ran, Runner, ask, records_of
from tests.sweep.test_sweep import runs_of

pytestmark = pytest.mark.slow

FAKE = ROOT / "tests/data/toplev"
ICX = {
    "PERF": str(FAKE / "fakeperf" / "perf"),
    "CPUINFO": str(FAKE / "cpuinfo" / "icx"),
    "EVENTMAP": str(FAKE / "events" / "icx_core.min.json"),
    "FORCEMETRICS": "1",
}


def metrics(record: CellRecord) -> Mapping[str, float]:
    return {**record.outcomes[0].figures, **(record.captured.figures if record.captured else {})}


def only(ran: Ran) -> CellRecord:
    [record] = records_of(ran)
    return record


def folder_of(ran: Ran, record: CellRecord) -> Path:
    return captures_folder(ran.sweep, record.cell_id)


# -- all captures, as they are by default -----------------------------------------------------------------


@pytest.fixture(scope="module")
def channels(run_cli: Runner) -> Ran:
    ran = run_cli("-m", "+experiment=channels_last_conv_relu", "iterations=20", "rounds=1")
    assert ran.status == 0, ran.out + ran.err
    return ran


def timed_folder_of(ran: Ran) -> Path:
    """The folder of the single job of a sweep that was timed."""
    return job_folder(ran.sweep, only(ran).cell_id, 0)


def cells_by_format(ran: Ran) -> dict[tuple[str, str], CellRecord]:
    return {(record.axes["memory_format"], record.axes["ipex"]): record for record in records_of(ran)}


def test_every_cell_has_every_capture_in_mlflow(channels: Ran, mlruns: Path) -> None:
    client, _, cells = runs_of(mlruns, channels.sweep)
    assert len(cells) >= 2
    for run in cells:
        for path in ("onednn/trace.csv", "onednn/by_primitive.json", "onednn/by_operator.json",
                     "itt/timeline.json", "itt/by_op.json",
                     "profiler/table.txt", "profiler/by_op.json", "profiler/trace.json.gz"):  # fmt: skip
            folder, _, name = path.partition("/")
            kept = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, folder)}
            assert name in kept, path
        for name in ("onednn", "itt", "profiler"):
            # On a machine that others use it may be marked as unlike the timed iterations.
            assert run.data.tags[f"capture.{name}"].split("; ")[0] == "ok"
        for name in ("onednn", "itt", "profiler", "counters"):
            assert f"overhead/{name}_pct" in run.data.metrics
        assert run.data.tags["capture.counters"].split("; ")[0] == probe.perf_counters().source
        # What the UI lists as tables, comparable across runs.
        logged = json.loads(run.data.tags["mlflow.loggedArtifacts"])
        assert {"path": "itt/by_op.json", "type": "table"} in logged


def test_reorders_are_as_many_as_grep_counts_in_the_raw_log(channels: Ran) -> None:
    for record in records_of(channels):
        folder = folder_of(channels, record)
        lines = (folder / "onednn-0.log").read_text().splitlines()
        counted = sum("primitive,exec,cpu,reorder," in line for line in lines)
        result = json.loads((folder / "result.json").read_text())
        steps = {len(seconds) for seconds in result["onednn_step_s"].values()}
        assert len(steps) == 1
        # Those of the timed process, which logs iterations as well.
        assert counted == pytest.approx(metrics(record)["onednn/reorders_per_iteration"] * steps.pop())
        with (folder / "onednn" / "trace.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert counted == sum(row["primitive"] == "reorder" for row in rows)
        assert {row["copy"] for row in rows} <= {"torch", "ipex"}
        table = read_table(folder / "onednn" / "by_primitive.json")
        assert sum(table["calls per iteration"]) == pytest.approx(metrics(record)["onednn/primitives_per_iteration"])


def test_the_operators_that_called_onednn_are_told(channels: Ran) -> None:
    for (_, ipex), record in cells_by_format(channels).items():
        assert record.captured is not None
        # On a machine that others use it may be marked as unlike the timed iterations.
        assert record.captured.captures["capture.callers"].split("; ")[0] == "ok"
        assert metrics(record)["onednn/attributed_pct"] > 95
        table = read_table(folder_of(channels, record) / "onednn" / "by_operator.json")
        [convolution] = [i for i, text in enumerate(table["primitives"]) if "convolution " in text]
        name = "torch_ipex::convolution_forward" if ipex == "on" else "aten::mkldnn_convolution"
        assert table["operator"][convolution].startswith(name)


def test_activations_are_reordered_channels_first_and_not_channels_last(channels: Ran) -> None:
    for (memory_format, _), record in cells_by_format(channels).items():
        reorders = metrics(record)["onednn/activation_reorders_per_iteration"]
        assert reorders > 0 if memory_format == "channels_first" else reorders == 0


def test_what_changed_is_in_the_table_in_mlflow_and_in_pictures(channels: Ran, mlruns: Path) -> None:
    cells = cells_by_format(channels)
    reorders = [
        metrics(cells[form, "off"])["onednn/reorders_per_iteration"] for form in ("channels_first", "channels_last")
    ]
    assert reorders == [3, 1]
    # Whether one round tells the cells apart is a matter of the moment's noise here, and so is which part explains
    # most; that all places agree on it is not.
    causes = [run.data.tags["main_cause"] for run in runs_of(mlruns, channels.sweep)[2]]
    assert all(causes)
    is_named = any(cause != "-" for cause in causes)
    # The heading stands in two lines ("main", "cause") where each value is as short as "not seen".
    assert (bool(re.search(r"\bcause\b", channels.out)) or "why they differ: " in channels.out) == is_named, causes
    assert (channels.sweep / "breakdown.png").stat().st_size > 100
    # What others disturbed is named and not shown, and where the tests run there may be others.
    is_shown = "operators that changed most, own ms per iteration, baseline -> fastest:" in channels.out
    is_alone = ": the baseline, " in channels.out  # the baseline is the fastest: there is nothing to compare it with
    assert is_shown or is_alone or "operators: captured while others disturbed" in channels.out
    assert (channels.sweep / "operators.csv").exists() == is_shown


def test_steps_of_itt_agree_with_the_workers_clock_within_2_percent(channels: Ran) -> None:
    for record in records_of(channels):
        steps = itt.read((folder_of(channels, record) / "itt.bin").read_bytes()).steps
        own = read_captures(folder_of(channels, record) / "captures.json")["itt"].step_s
        # The median: a step of a millisecond that is interrupted between the two clocks is off by more.
        assert median(abs(a.seconds / b - 1) for a, b in zip(steps, own, strict=True)) < 0.02
        assert metrics(record)["itt/dropped"] == 0


def test_itt_and_the_profiler_saw_the_same_operators_as_often(channels: Ran) -> None:
    for record in records_of(channels):
        tables = [read_table(folder_of(channels, record) / source / "by_op.json") for source in ("itt", "profiler")]
        calls = [
            {
                name: n
                for name, n in zip(table["operator"], table["calls per iteration"], strict=True)
                if "aten::" in name
            }
            for table in tables
        ]
        assert calls[0] == calls[1]


def test_the_timeline_is_valid_trace_events(channels: Ran) -> None:
    for record in records_of(channels):
        trace = json.loads((folder_of(channels, record) / "itt" / "timeline.json").read_text())
        complete = [event for event in trace["traceEvents"] if event["ph"] == "X"]
        assert complete
        for event in complete:
            assert {"name", "ph", "ts", "dur", "pid", "tid"} <= set(event)
            assert event["ts"] >= 0
            assert event["dur"] >= 0
        assert {event["ph"] for event in trace["traceEvents"]} == {"M", "X"}


def test_a_machine_without_a_pmu_is_told_so_once_and_the_sweep_finishes(channels: Ran) -> None:
    tags = {record.captures["tma"] for record in records_of(channels)}
    if tags == {"ok"}:
        pytest.skip("this machine has a PMU")
    assert len(tags) == 1
    assert tags.pop().startswith("unavailable: ")
    assert channels.out.count("not recorded here toplev") == 1
    assert not any(name.startswith("tma/") for record in records_of(channels) for name in metrics(record))


# -- captures that need a launch of their own ---------------------------------------------------------------
#
# toplev is the real one, with a perf that makes up its counts. VTune is a stand-in that starts the job as vtune does:
# the real one can't be installed here.


@pytest.fixture(scope="module")
def launched_again(run_cli: Runner, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("vtune")
    vtune = folder / "vtune"
    vtune.write_text(
        '#!/bin/sh\nwhile [ "$1" != -- ]; do [ "$1" = -result-dir ] && mkdir "$2"; shift; done\nshift\nexec "$@"\n'
    )
    vtune.chmod(0o755)
    ran = run_cli(
        "capture=[itt,toplev]", "capture.itt.vtune=true", "capture.toplev.level=3", "capture.toplev.min_time_s=0.5",
        *TINY, env={**ICX, "PATH": f"{folder}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert ran.status == 0, ran.out + ran.err
    return ran


def test_a_job_under_the_real_toplev_has_the_recorded_levels_in_mlflow(launched_again: Ran, mlruns: Path) -> None:
    client, _, [run] = runs_of(mlruns, launched_again.sweep)
    recorded = toplev.parse((FAKE / "csv" / "icx-l3.csv").read_text())
    for node in recorded.nodes:
        assert run.data.metrics[f"tma/{node.path}"] == pytest.approx(node.value, abs=0.11)
    assert sum(run.data.metrics[f"tma/{name}"] for name in LEVEL1) == pytest.approx(100, abs=2)
    assert run.data.tags["tma"] == "ok"
    assert run.data.tags["tma.bottleneck"] == recorded.bottleneck
    assert "overhead/toplev_pct" in run.data.metrics
    kept = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "tma")}
    assert {"toplev.csv", "perf.raw", "result.json", "stderr.log"} <= kept
    assert "unavailable" not in launched_again.out
    # The timing pass was launched without toplev, the other one with it.
    folder, timed = folder_of(launched_again, only(launched_again)), timed_folder_of(launched_again)
    assert not any("toplev" in word for word in json.loads((timed / "launch.json").read_text())["argv"])
    assert "--control" in json.loads((folder / "tma" / "launch.json").read_text())["argv"]


def test_under_vtune_the_job_is_launched_again_and_its_result_folder_named(launched_again: Ran) -> None:
    record = only(launched_again)
    folder = folder_of(launched_again, record)
    assert record.captures["capture.itt"].startswith("VTune: open ")
    assert json.loads((folder / "vtune" / "job.json").read_text())["marked"] is True
    launched = json.loads((timed_folder_of(launched_again) / "launch.json").read_text())
    assert "INTEL_LIBITTNOTIFY64" not in launched["env"]


def keeps_its_result_without_toplev(ran: Ran) -> str:
    """The tag of toplev, where that failed and nothing else did."""
    assert ran.status == 0, ran.out + ran.err
    record = only(ran)
    assert len(record.results[0, 0].latencies_s) == 20
    assert not any(name.startswith("tma/") for name in metrics(record))
    return record.captures["tma"]


SHORT = ("capture=[toplev]", "capture.toplev.min_time_s=0.5", *TINY)


def test_a_toplev_that_can_not_measure_is_unavailable_and_the_job_keeps_its_result(run_cli: Runner) -> None:
    said = keeps_its_result_without_toplev(run_cli(*SHORT, env={**ICX, "FAKE_PERF_MODE": "partial"}))
    assert said.startswith("unavailable: ")
    assert "not counted" in said


def test_a_worker_killed_under_toplev_fails_the_pass_and_not_the_job(run_cli: Runner, tmp_path: Path) -> None:
    dies = ("model._target_=misbehaving.dies_in_the_second_process", f"+model.kwargs.mark={tmp_path / 'mark'}")
    said = keeps_its_result_without_toplev(run_cli(*SHORT, *dies, env={**MODELS, **ICX}))
    assert said.startswith("failed: ")


# -- captures that fail, or are not taken -------------------------------------------------------------------


def by_model(ran: Ran) -> dict[str, CellRecord]:
    """Records by the name of the function in tests/models."""
    return {record.labels["model._target_"].rpartition(".")[2]: record for record in records_of(ran)}


@pytest.fixture(scope="module")
def twice(run_cli: Runner) -> Ran:
    """Two rounds of a cell with captures and a trace past its limit, and of one that dies while it is captured.

    The first one's labels would break the profiler's trace.
    """
    targets = "model._target_=honest.labelled,misbehaving.dies_under_itt"
    captures = ("capture=[counters,itt,profiler]", "capture.profiler.max_trace_mb=0.0001")
    ran = run_cli("-m", targets, *captures, *TINY, "rounds=2", env=MODELS)
    assert ran.status == 0, ran.out + ran.err
    return ran


def test_a_worker_killed_during_a_capture_keeps_its_result_and_says_which(twice: Ran) -> None:
    record = by_model(twice)["dies_under_itt"]
    assert record.captures["capture.itt"].startswith("failed: the worker did not survive it")
    assert record.captures["capture.profiler"].startswith("failed: the worker ended before it")
    assert not record.captures["capture.counters"].startswith("failed")
    assert metrics(record)["counters/minor-faults_per_iteration"] >= 0
    assert len(record.results[0, 0].latencies_s) == 20
    assert record.failure is None


def test_a_label_that_torch_does_not_escape_costs_neither_the_measurement_nor_a_capture(twice: Ran) -> None:
    record = by_model(twice)["labelled"]
    assert (record.failure, record.quality) == (None, "ok")
    for name in ("itt", "profiler"):
        assert not record.captures[f"capture.{name}"].startswith(("failed", "unavailable"))
        operators = read_table(folder_of(twice, record) / name / "by_op.json")["operator"]
        assert {'block "stem" \\ of\nthe model', "aten::conv2d"} <= set(operators)


def test_captures_are_taken_in_a_process_of_their_own_after_the_last_round(twice: Ran) -> None:
    for record in by_model(twice).values():
        rounds = [job_folder(twice.sweep, record.cell_id, number) for number in (0, 1)]
        taken = captures_job(twice.sweep, record.cell_id)
        assert (taken / "captures.json").exists()
        assert read_spec(taken / "job.json").cell.iterations == 2
        for timed in rounds:
            assert not (timed / "captures.json").exists()
            assert read_spec(timed / "job.json").captures == Captures()
            assert (timed / "result.json").stat().st_mtime_ns < (taken / "launch.json").stat().st_mtime_ns
        assert record.captured is not None
    figures = cell_metrics(by_model(twice)["labelled"])
    assert figures["cost/itt_s"] > 0
    assert figures["cost/captures_s"] > 0
    said = twice.out
    assert said.index("First look, 1 of 2 rounds") < said.index("timing is over: the captures of 2 cells follow")
    assert said.index("timing is over") < said.index("[captures 2/2]") < said.index("files   ")


def test_captures_end_with_their_budget_and_a_resumed_sweep_takes_the_others(run_cli: Runner, mlruns: Path) -> None:
    words = ("-m", "launcher=none,xeon", *TINY, "capture=[onednn]", "capture_budget_min=0.001")
    ran = run_cli(*words)
    assert ran.status == 0, ran.out + ran.err
    assert "capture_budget_min=0.001: the next job would end after it; captures of 1 cell left out" in ran.out
    taken = {record.axes["launcher"]: record.captured is not None for record in records_of(ran)}
    assert taken == {"none": True, "xeon": False}  # the baseline's come first
    again = ask("resume", ran.sweep.name, "--mlruns", str(mlruns))
    assert again.status == 0, again.out + again.err
    assert all(record.captured is not None for record in records_of(ran))
    tags = [run.data.tags.get("capture.onednn", "") for run in runs_of(mlruns, ran.sweep)[2]]
    assert all(tag.split("; ")[0] == "ok" for tag in tags)


def test_a_trace_past_its_limit_is_left_out_with_a_word_and_the_tables_stay(twice: Ran) -> None:
    folder = folder_of(twice, by_model(twice)["labelled"])
    assert {path.name for path in (folder / "profiler").iterdir()} == {"table.txt", "by_op.json", "trace-left-out.txt"}


def test_without_captures_nothing_of_them_is_left_and_the_evidence_is(lone_core: Ran) -> None:
    record = only(lone_core)
    folder = folder_of(lone_core, record)
    assert not [path.name for path in folder.iterdir() if path.is_dir()]
    assert not [tag for tag in record.captures if tag.startswith("capture.")]
    assert not captures_job(lone_core.sweep, record.cell_id).exists()
    assert record.evidence == "ok"
    job: dict[str, Any] = json.loads((folder / "launch.json").read_text())
    assert "INTEL_LIBITTNOTIFY64" not in job["env"]


# -- the kernels that inductor generates ------------------------------------------------------------------


def test_kernels_that_torch_compile_generated_are_named_with_what_they_compute(run_cli: Runner, mlruns: Path) -> None:
    ran = run_cli(
        "-m", "graph=eager,compile", "memory_format=channels_last", *TINY, "capture=[onednn,profiler,inductor]"
    )
    assert ran.status == 0, ran.out + ran.err
    of_graph = {record.axes["graph"]: record for record in records_of(ran)}
    tags = {graph: record.captured.captures for graph, record in of_graph.items() if record.captured}
    assert tags["eager"]["capture.inductor"] == "unavailable: inductor generates no code for graph=eager"
    # On a machine that others use it may be marked as unlike the timed iterations.
    assert tags["compile"]["capture.inductor"].split("; ")[0] == "ok"
    figures = metrics(of_graph["compile"])
    assert figures["inductor/kernels"] >= 1
    assert 0 < figures["inductor/generated_pct"] < figures["inductor/named_pct"] <= 100
    assert "overhead/inductor_pct" in figures
    folder = folder_of(ran, of_graph["compile"]) / "inductor"
    table = read_table(folder / "by_kernel.json")
    made_of = dict(zip(table["kernel"], table["operators"], strict=True))
    generated = [name for name, kind in zip(table["kernel"], table["kind"], strict=True) if kind == "generated"]
    assert all(made_of[name].startswith("aten.") for name in generated)
    assert any("aten.relu" in made_of[name] for name in generated)
    source = (folder / "source-0.py").read_text()
    assert all(f"{name} = " in source for name in generated)
    explained = ask("explain", "graph=eager", "graph=compile", "--sweep", ran.sweep.name, f"--mlruns={mlruns}")
    assert explained.status == 0, explained.err
    if "disturbed, not shown" not in explained.out:
        text = " ".join(explained.out.split())
        assert "by PyTorch's profiler in A, inductor's kernel profile in B" in text
        assert "Operators and kernels with a name take " in text
