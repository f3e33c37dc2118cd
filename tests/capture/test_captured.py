"""A capture that goes wrong on the runner's side becomes its tag, and costs nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.capture import collect as collecting
from runner.capture import probe
from runner.capture.collect import Findings, guarded
from runner.capture.onednn import parse
from runner.capture.tables import read_table, read_trace
from runner.config.captures import (
    CaptureConf,
    CountersCaptureConf,
    IttCaptureConf,
    OnednnCaptureConf,
    ProfilerCaptureConf,
)
from runner.protocol.resultfile import CAPTURES_FILE, NOT_SURVIVED, Captured, Window, WorkerResult, write_captures
from tests.conftest import ROOT

CLEAN = WorkerResult("cell", 0, latencies_s=[0.010, 0.011, 0.012], onednn_step_s={"torch": [0.02]})
WORK = {"model": "tiny", "batch_size": "4", "sequence_length": "-", "precision": "fp32"}
VERBOSE = (ROOT / "tests/data/onednn-verbose/convrelu_eager.log").read_text()
WINDOW = Window(0.1, 50, 0, 3, 1, 0.1, 0.02, None, None, None)


@pytest.fixture
def without_perf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "perf_counters", lambda: probe.Counters((), "getrusage (no perf)"))


def collect(folder: Path, asked: CaptureConf, taken: list[Captured], stopped: str | None = None) -> Findings:
    write_captures(folder / CAPTURES_FILE, taken)
    return collecting.collect(folder, asked, CLEAN, parse([]), "", WORK, stopped)


def test_an_exception_or_a_figure_that_is_no_number_becomes_the_tag() -> None:
    def raises() -> Findings:
        raise TypeError("torn")

    assert guarded("capture.x", raises).tags == {"capture.x": "failed: TypeError: torn"}
    found = guarded("capture.x", lambda: Findings({"a": 1.0, "b": float("nan"), "c": float("inf")}))
    assert found.figures == {"a": 1.0}
    assert found.tags == {"capture.x": "failed: no finite figure for b, c"}


def test_without_perf_the_counters_are_getrusages_of_the_captured_steps(tmp_path: Path, without_perf: None) -> None:
    taken = [Captured("clean", [0.010, 0.010]), Captured("counters", [0.010] * 10, window=WINDOW)]
    found = collect(tmp_path, CaptureConf(counters=CountersCaptureConf()), taken)
    assert found.figures["counters/minor-faults_per_iteration"] == 5
    assert found.figures["counters/task-clock_ms_per_iteration"] == pytest.approx(12)
    assert found.figures["counters/context-switches_per_iteration"] == 0.4
    assert found.tags["capture.counters"] == "getrusage (no perf)"


def test_overhead_is_set_against_clean_steps_of_the_same_moment(tmp_path: Path, without_perf: None) -> None:
    taken = [Captured("clean", [0.020] * 3), Captured("counters", [0.022] * 3, window=WINDOW)]
    found = collect(tmp_path, CaptureConf(counters=CountersCaptureConf()), taken)
    assert found.figures["overhead/counters_pct"] == pytest.approx(10)
    assert found.figures["captures/drift_pct"] == pytest.approx(100 * (20 / 11 - 1))


def test_a_torn_recording_fails_its_capture_alone(tmp_path: Path, without_perf: None) -> None:
    (tmp_path / "itt.bin").write_bytes(b"ITTC\x01")
    taken = [Captured("counters", [0.01], window=WINDOW), Captured("itt", [0.01])]
    found = collect(tmp_path, CaptureConf(itt=IttCaptureConf(), counters=CountersCaptureConf()), taken)
    assert found.tags["capture.itt"].startswith("failed: the ITT recording is torn")
    assert not found.tags["capture.counters"].startswith("failed")


def test_a_worker_stopped_for_its_time_says_so_for_what_was_under_way_and_after(tmp_path: Path) -> None:
    taken = [Captured("itt", failure=NOT_SURVIVED)]
    asked = CaptureConf(itt=IttCaptureConf(), counters=CountersCaptureConf())
    found = collect(tmp_path, asked, taken, stopped="timeout_s=5 passed during the captures")
    assert found.tags["capture.itt"] == found.tags["capture.counters"] == (
        "failed: timeout_s=5 passed during the captures"
    )  # fmt: skip
    found = collect(tmp_path, asked, taken)
    assert found.tags["capture.itt"] == f"failed: {NOT_SURVIVED}"


def test_a_missing_captures_file_fails_them_all_and_leaves_onednns_log(tmp_path: Path) -> None:
    asked = CaptureConf(itt=IttCaptureConf(), onednn=OnednnCaptureConf())
    found = collecting.collect(tmp_path, asked, CLEAN, parse([]), "", WORK)
    assert found.tags["capture.itt"].startswith("failed: ")
    assert found.tags["capture.onednn"] == "ok"


def test_nothing_asked_for_leaves_nothing(tmp_path: Path) -> None:
    found = collecting.collect(tmp_path, CaptureConf(), CLEAN, parse([]), "", WORK)
    assert found == Findings()
    assert not list(tmp_path.iterdir())


def test_every_table_says_which_work_it_is_of(tmp_path: Path) -> None:
    header = [line for line in VERBOSE.splitlines() if "info" in line]
    executed = next(line for line in VERBOSE.splitlines() if "primitive,exec" in line)
    log = parse([*header, "#### step 0 torch", executed])
    (tmp_path / "profiler").mkdir()
    (tmp_path / "profiler" / "table.txt").write_text("Name  CPU time\n")
    rows = [{"name": "aten::conv2d", "calls": 2, "total_s": 0.02, "self_s": 0.02}]
    (tmp_path / "profiler" / "ops.json").write_text(json.dumps(rows))
    asked = CaptureConf(onednn=OnednnCaptureConf(), profiler=ProfilerCaptureConf())
    write_captures(tmp_path / CAPTURES_FILE, [Captured("profiler", [0.01, 0.01])])
    found = collecting.collect(tmp_path, asked, CLEAN, log, "", WORK)
    assert {found.tags["capture.onednn"], found.tags["capture.profiler"]} == {"ok"}
    for name in ("onednn/by_primitive.json", "profiler/by_op.json"):
        assert {axis: values[0] for axis, values in read_table(tmp_path / name).items() if axis in WORK} == WORK
    [row] = read_trace(tmp_path / "onednn" / "trace.csv")
    assert {axis: row[axis] for axis in WORK} == WORK
    assert (tmp_path / "profiler" / "table.txt").read_text() == (
        "model=tiny, batch_size=4, sequence_length=-, precision=fp32\nName  CPU time\n"
    )


def test_a_range_that_the_profiler_s_trace_lacks_is_counted_in_its_tag(tmp_path: Path) -> None:
    (tmp_path / "profiler").mkdir()
    (tmp_path / "profiler" / "ops.json").write_text("[]")
    note = "2 ranges left out of the trace: torch did not escape their labels"
    found = collect(tmp_path, CaptureConf(profiler=ProfilerCaptureConf()), [Captured("profiler", [0.01], note=note)])
    assert found.tags["capture.profiler"] == note


def test_counts_whose_last_line_is_cut_off_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "perf_counters", lambda: probe.Counters(("perf",), "perf"))
    (tmp_path / "counters.csv").write_text("5.5;msec;task-clock;5;100.00;;\n12;;page-faults;5;100.00;;\n123")
    found = collect(
        tmp_path, CaptureConf(counters=CountersCaptureConf()), [Captured("counters", [0.01], window=WINDOW)]
    )
    assert found.tags["capture.counters"].startswith("failed: perf's counts are torn")
    assert "counters/page-faults_per_iteration" not in found.figures
