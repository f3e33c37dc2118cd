"""The main cause: which part of the step explains a difference, and when nothing is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runner import stats
from runner.analysis import cause, operators
from runner.analysis.ranking import Row
from runner.report import breakdown
from tests.report.test_report import record


def row(p50_ms: float, isa: str = "avx512", /, **metrics: float) -> Row:
    """A cell; metrics by their last word: compute, reorder, other in ms, reorders, faults, kernel in ms."""
    names = {
        "compute": "onednn/compute_ms_per_iteration",
        "reorder": "onednn/reorder_ms_per_iteration",
        "other": "onednn/other_ms_per_iteration",
        "reorders": "onednn/reorders_per_iteration",
        "fused": "onednn/fused_per_iteration",
        "faults": "faults/minor_per_iteration",
        "kernel": "cpu/kernel_ms_per_iteration",
    }
    found = {names[key]: value for key, value in metrics.items()} | {"latency/p50_ms": p50_ms}
    cell = record("x", [p50_ms / 1e3])
    object.__setattr__(cell.outcomes[0], "isa", isa)
    return Row(cell, found, 1.0, False)


def slow(**metrics: float) -> Row:
    return replace(row(20, **metrics), is_baseline=True)


def test_reorders_that_went_are_named_with_their_share_of_the_difference() -> None:
    before = slow(compute=10, reorder=8, other=0, reorders=3)
    after = row(12, compute=10, reorder=0, other=0, reorders=0)
    assert cause.main_cause(before, after) == "reorders a step 3 -> 0 (-8 of -8 ms)"


def test_primitives_keep_the_times_of_their_log_and_the_rest_of_the_clean_step_is_outside() -> None:
    found = cause.split(row(20, compute=9, reorder=1, other=0))
    assert found == {"convolutions and products": 9, "reorders": 1, "other primitives": 0, "outside oneDNN": 10}
    # A little more than the step: scaled to fit. Much more: it was another step, and says nothing.
    assert cause.split(row(20, compute=22, reorder=0, other=0))["convolutions and products"] == pytest.approx(20)
    assert cause.split(row(20, compute=100, reorder=0, other=0)) == {}
    before = slow(compute=100, reorder=40, other=0, reorders=3)
    assert cause.main_cause(before, row(12, compute=10, reorder=0, other=0, reorders=0)) == "not seen"


def test_page_faults_are_the_cause_when_the_kernels_time_went_with_them() -> None:
    before = slow(compute=10, reorder=0, other=0, faults=800_000, kernel=9)
    after = row(12, compute=10, reorder=0, other=0, faults=100, kernel=0.5)
    assert cause.main_cause(before, after) == "page faults a step 800 k -> 100 (-8.5 of -8 ms)"


def test_page_faults_inside_reorders_and_convolutions_are_still_page_faults() -> None:
    # As many reorders and the same kernels, each faster because its memory no longer faults.
    before = slow(compute=9, reorder=9, other=0, reorders=3, faults=59_000, kernel=7)
    after = row(12, compute=6, reorder=4, other=0, reorders=3, faults=400, kernel=0.1)
    assert cause.main_cause(before, after) == "page faults a step 59 k -> 400 (-6.9 of -8 ms)"


def test_arithmetic_that_moved_into_onednn_is_one_part() -> None:
    before = replace(row(150, "unobserved", compute=2, reorder=0, other=3), is_baseline=True)
    after = row(70, "avx512_core_bf16", compute=50, reorder=2, other=3)
    assert cause.main_cause(before, after) == "arithmetic moved into oneDNN (-82 of -80 ms)"


def test_without_a_count_that_differs_the_part_is_named_alone() -> None:
    before, after = slow(compute=10, reorder=0, other=0), row(12, compute=3, reorder=0, other=0)
    assert cause.main_cause(before, after) == "time in convolutions and products (-7 of -8 ms)"


def test_other_instructions_are_named_by_family() -> None:
    before = slow(compute=18, reorder=0, other=0)
    after = row(5, "avx512_core_vnni", compute=3, reorder=0, other=0)
    assert cause.main_cause(before, after) == "kernels avx512 -> avx512_core_vnni (-15 of -15 ms)"


def test_a_small_difference_has_no_cause() -> None:
    before = slow(compute=10, reorder=8, other=0, reorders=3)
    assert cause.main_cause(before, row(19.5, compute=10, reorder=0, other=0, reorders=0)) == "-"
    assert cause.main_cause(before, before) == "-"


def test_fewer_reorders_are_no_reason_for_more_time_in_them() -> None:
    before = slow(compute=10, reorder=4, other=0, reorders=158)
    after = row(30, compute=10, reorder=12, other=0, reorders=106)
    assert cause.main_cause(before, after) == "time in reorders (+8 of +10 ms)"


def test_a_difference_that_the_rounds_do_not_show_has_no_cause() -> None:
    before = slow(compute=10, reorder=8, other=0, reorders=3)
    after = row(12, compute=10, reorder=0, other=0, reorders=0)
    undecided = stats.Verdict(stats.Answer.UNDECIDED, 1.6, None, 0.3, 0.3, 0.8)
    assert cause.main_cause(before, replace(after, verdict=undecided)) == "-"
    faster = replace(undecided, answer=stats.Answer.FASTER)
    assert cause.main_cause(before, replace(after, verdict=faster)).startswith("reorders")


def test_what_was_not_captured_explains_nothing() -> None:
    assert cause.main_cause(slow(), row(10)) == "not seen"


def test_a_part_that_moved_the_other_way_is_not_the_cause() -> None:
    before = slow(compute=10, reorder=0, other=0, reorders=0)
    after = row(10, compute=2, reorder=4, other=0, reorders=4)
    assert "reorders" not in cause.main_cause(before, after)


def test_without_a_picture_of_any_cell_no_file_is_written(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("pictures") / "breakdown.png"
    breakdown.draw([slow()], ["allocator"], file, "nothing captured")
    assert not file.exists()
    breakdown.draw([slow(compute=10, reorder=8, other=0)], ["allocator"], file, "captured")
    assert file.stat().st_size > 1000


def test_changes_are_written_without_exponents() -> None:
    assert [cause.signed(ms) for ms in (-1093.4, 0.1234, 8.0, 0.0)] == ["-1093", "+0.123", "+8", "+0"]


def test_operators_of_two_cells_are_set_side_by_side_largest_change_first() -> None:
    before: dict[str, list[Any]] = {"operator": ["aten::conv2d", "aten::relu", "aten::add"], "ms": [16.4, 3.0, 1.0]}
    after: dict[str, list[Any]] = {"operator": ["aten::conv2d", "fused", "aten::add"], "ms": [6.4, 2.0, 1.1]}
    changes = operators.difference(before, after)
    assert changes[0].text == "aten::conv2d 16.4 -> 6.4 ms"
    assert [change.name for change in changes] == ["aten::conv2d", "aten::relu", "fused", "aten::add"]
    assert operators.difference({}, after)[0].text == "aten::conv2d 0 -> 6.4 ms"
