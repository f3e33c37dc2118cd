"""Captured iterations that are not like the timed ones, and where the mark is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.analysis.disturbance import why_not_shown
from runner.checks import likeness
from runner.protocol.resultfile import Captured, Surroundings, Window, WorkerResult
from runner.report import sweep_end, timeline
from runner.results.outcome import read_cell
from tests.builders import ranked, record, store_cell

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


def trace_of(folder: Path, *steps_us: float) -> Path:
    """A timeline with iterations of this length, as ITT leaves one."""
    (folder / "itt").mkdir(parents=True)
    events = [step(number, 1e7 * number, length) for number, length in enumerate(steps_us)]
    (folder / "itt" / "timeline.json").write_text(json.dumps({"traceEvents": events}))
    return folder / "itt" / "timeline.json"


def test_an_iteration_like_the_timed_ones_is_drawn_and_a_disturbed_one_is_named(tmp_path: Path) -> None:
    like = timeline.TracedCell("ptmalloc", trace_of(tmp_path / "a", 3000), 2.9)
    slow = timeline.TracedCell("jemalloc", trace_of(tmp_path / "b", 6_200_000), 2.9)
    busy = timeline.TracedCell("tcmalloc", trace_of(tmp_path / "c", 3000), 2.9, "others were at work")
    picture = tmp_path / "timeline.png"
    assert timeline.draw([like, slow, busy], picture, "title") == [
        "jemalloc: the captured iteration was disturbed; not shown (6200 ms, the timed ones 2.9 ms (median))",
        "tcmalloc: the captured iteration was disturbed; not shown (others were at work)",
    ]
    assert picture.exists()
    # A picture that an earlier end of the sweep left is not taken for one of this.
    assert len(timeline.draw([slow], picture, "title")) == 1
    assert not picture.exists()


def test_behind_a_server_an_iteration_is_not_set_against_the_requests(tmp_path: Path) -> None:
    served = timeline.TracedCell("ptmalloc", trace_of(tmp_path, 6_200_000), None)
    assert timeline.draw([served], tmp_path / "timeline.png", "title") == []


TAG = "ok; unlike the timed iterations: other processes took 90 % of a core"


@pytest.mark.parametrize(
    ("figures", "tag", "why"),
    [
        ({}, "ok", ""),
        ({}, TAG, "other processes took 90 % of a core"),
        ({"itt/step_p50_ms": 6.2}, "ok", "its iterations took 6.2 ms, the timed ones 2.9 ms (medians)"),
        ({"captures/drift_pct": 110.7}, "ok", "iterations beside it, which nothing recorded, took 111 % longer"),
        ({"captures/drift_pct": -30.0, "itt/step_p50_ms": 3.0}, "ok", ""),
    ],
)
def test_a_capture_is_shown_only_if_its_iterations_were_like_the_timed_ones(
    figures: dict[str, float], tag: str, why: str
) -> None:
    measured = record("a", [0.0029] * 5, figures=figures)
    outcomes = [replace(outcome, captures={"capture.itt": tag}) for outcome in measured.outcomes]
    [row] = ranked([replace(measured, outcomes=outcomes)], "a").rows
    assert why_not_shown(row.cell, "itt").startswith(why)
    assert bool(why_not_shown(row.cell, "itt")) == bool(why)


def test_operators_of_a_disturbed_capture_are_not_shown(tmp_path: Path) -> None:
    for name, ms in (("ptmalloc", 20.0), ("tcmalloc", 10.0)):
        store_cell(tmp_path, name, ms, {})
    (tmp_path / "operators.csv").write_text("of an earlier end")
    records = [record for name in ("ptmalloc", "tcmalloc") if (record := read_cell(tmp_path, name))]
    ranking = ranked(records, "ptmalloc")
    assert any("aten::conv2d 18 -> 8" in line for line in sweep_end.leave(ranking, tmp_path, "title"))
    marked = [replace(row, cell=replace(row.cell, captures={"capture.itt": TAG})) for row in ranking.rows]
    said = sweep_end.leave(replace(ranking, rows=marked), tmp_path, "title")
    assert "operators: captured while others disturbed ptmalloc and tcmalloc; not shown" in said
    assert not (tmp_path / "operators.csv").exists()
