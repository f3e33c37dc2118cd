"""Captured iterations that are not like the timed ones, and where the mark is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.checks import likeness
from runner.protocol.resultfile import Captured, Surroundings, Window, WorkerResult
from runner.report import sweep_end, timeline
from tests.builders import ranked, record

TIMED = WorkerResult("c", 0, latencies_s=[0.0028, 0.0029, 0.0030, 0.0029, 0.0029])


def window(busy_s: float) -> Window:
    """A second in which the job used one of its two CPUs, and all used so much of them."""
    around = Surroundings([0, 1], 0.02, busy_s, 0.0, {}, None, None, None, None, None, None, None)
    return Window(1.0, 0, 0, 0, 40, 1.0, 0.0, None, 0.0, 0.0, around)


def marked(*captured: Captured, timed: WorkerResult = TIMED, tag: str = "ok") -> dict[str, str]:
    tags = {f"capture.{capture.name}": tag for capture in captured}
    return likeness.marked(tags, {capture.name: capture for capture in captured}, timed)


def test_a_captured_iteration_like_the_timed_ones_has_no_mark() -> None:
    assert marked(Captured("itt", [0.0031] * 3, window=window(1.0))) == {"capture.itt": "ok"}


def test_captured_iterations_beyond_the_spread_of_the_timed_ones_are_marked() -> None:
    tags = marked(Captured("itt", [0.0062, 0.0061, 0.0063]))
    assert tags == {"capture.itt": "ok; unlike the timed iterations: they took 6.2 ms, the timed ones 2.9 ms (medians)"}


def test_one_slow_captured_iteration_of_three_does_not_mark_the_capture() -> None:
    assert marked(Captured("itt", [0.0029, 6.2, 0.0029])) == {"capture.itt": "ok"}


def test_others_at_work_during_a_capture_mark_it() -> None:
    tags = marked(Captured("profiler", [0.0029] * 3, window=window(1.9)))
    assert tags["capture.profiler"].startswith("ok; unlike the timed iterations: other processes took 90 % of a core")


def test_the_iterations_of_onednns_log_are_judged_by_the_copy_that_logged_most() -> None:
    timed = replace(TIMED, onednn_step_s={"torch": [0.0001] * 3, "ipex": [0.009, 0.009, 0.009]})
    assert "they took 9 ms" in likeness.marked({"capture.onednn": "ok"}, {}, timed)["capture.onednn"]


@pytest.mark.parametrize("tag", ["failed: torn", "unavailable: no perf"])
def test_a_capture_without_iterations_keeps_its_tag(tag: str) -> None:
    assert marked(Captured("itt", [9.0]), tag=tag) == {"capture.itt": tag}


def test_behind_a_server_latencies_are_of_requests_and_say_nothing_about_an_iteration() -> None:
    served = replace(TIMED, window=replace(window(1.0), generator_cpu_s=0.1))
    assert marked(Captured("itt", [9.0]), timed=served) == {"capture.itt": "ok"}


# -- the picture ----------------------------------------------------------------------------------------


def step(number: int, start_us: float, length_us: float) -> dict[str, Any]:
    return {"ph": "X", "pid": 1, "tid": 7, "ts": start_us, "dur": length_us, "name": f"step_{number}", "cat": "PyTorch"}


def test_the_picture_is_of_the_iteration_of_median_length() -> None:
    events = [step(0, 0, 2900), step(1, 3000, 2800), step(2, 6000, 6_200_000)]
    [drawn] = timeline.middle_step(events)
    assert drawn[4] == "step_0"


@pytest.mark.parametrize(
    ("captured_ms", "mark", "end"),
    [
        (3.0, "", "an iteration of 3 ms, the timed ones 2.9 ms (median)"),
        (6200.0, "", "the timed ones 2.9 ms (median); UNLIKE THE TIMED ONES"),
        (3.0, "others were at work", "(median); UNLIKE THE TIMED ONES: others were at work"),
    ],
)
def test_the_picture_s_title_says_that_its_iteration_is_unlike_the_timed_ones(
    captured_ms: float, mark: str, end: str
) -> None:
    cell = timeline.TracedCell("jemalloc", Path("itt/timeline.json"), 2.9, mark)
    assert cell.heading(captured_ms).endswith(end)
    assert cell.heading(captured_ms).startswith("jemalloc: an iteration of ")


def test_the_mark_of_a_capture_is_in_the_title_of_its_cell(tmp_path: Path) -> None:
    disturbed = record("a", [0.0029] * 5)
    tag = "ok; unlike the timed iterations: other processes took 90 % of a core"
    outcomes = [replace(outcome, captures={"capture.itt": tag}) for outcome in disturbed.outcomes]
    [row] = ranked([replace(disturbed, outcomes=outcomes)], "a").rows
    (tmp_path / "itt").mkdir()
    (tmp_path / "itt" / "timeline.json").write_text(json.dumps({"traceEvents": []}))
    traced = sweep_end._traced(row, "a", tmp_path)
    assert traced.mark == "other processes took 90 % of a core"
    assert traced.p50_ms == pytest.approx(2.9)
