"""The main cause: which part of the iteration explains a difference, and when there is none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runner.analysis import cause, operators
from runner.analysis.ranking import Row, rank
from runner.capture import kernels, onednn
from runner.report import breakdown
from runner.results.cells import CellRow
from tests.builders import cell


def test_reorders_that_went_are_named_with_their_share_of_the_difference() -> None:
    before = cell(20, compute=10, reorder=8, other=0, reorders=3)
    after = cell(12, compute=10, reorder=0, other=0, reorders=0)
    assert cause.main_cause(before, after) == "reorders per iteration 3 -> 0 (-8 of -8 ms)"


def test_primitives_keep_the_times_of_their_log_and_the_rest_of_the_clean_step_is_outside() -> None:
    found = cause.split(cell(20, compute=9, reorder=1, other=0))
    assert found == {"convolution / matmul": 9, "reorders": 1, "other primitives": 0, "outside oneDNN": 10}
    # A little more than the step: scaled to fit. Much more: it was another step, and says nothing.
    assert cause.split(cell(20, compute=22, reorder=0, other=0))["convolution / matmul"] == pytest.approx(20)
    assert cause.split(cell(20, compute=100, reorder=0, other=0)) == {}
    before = cell(20, compute=100, reorder=40, other=0, reorders=3)
    assert cause.main_cause(before, cell(12, compute=10, reorder=0, other=0, reorders=0)) == "not seen"


def test_page_faults_are_the_cause_when_the_kernels_time_went_with_them() -> None:
    before = cell(20, compute=10, reorder=0, other=0, faults=800_000, kernel=9)
    after = cell(12, compute=10, reorder=0, other=0, faults=100, kernel=0.5)
    assert cause.main_cause(before, after) == "page faults per iteration 800 k -> 100 (-8.5 of -8 ms)"


def test_page_faults_inside_reorders_and_convolutions_are_still_page_faults() -> None:
    # As many reorders and the same kernels, each faster because its memory no longer faults.
    before = cell(20, compute=9, reorder=9, other=0, reorders=3, faults=59_000, kernel=7)
    after = cell(12, compute=6, reorder=4, other=0, reorders=3, faults=400, kernel=0.1)
    assert cause.main_cause(before, after) == "page faults per iteration 59 k -> 400 (-6.9 of -8 ms)"


def test_arithmetic_that_moved_into_onednn_is_one_part() -> None:
    before = cell(150, "unobserved", compute=2, reorder=0, other=3)
    after = cell(70, "avx512_core_bf16", compute=50, reorder=2, other=3)
    assert cause.main_cause(before, after) == "arithmetic moved into oneDNN (-82 of -80 ms)"


@pytest.mark.parametrize(("ms", "isa"), [(9.3, "avx512"), (10.0, "unobserved")])
def test_arithmetic_has_not_moved_where_both_cells_do_the_same_in_onednn(ms: float, isa: str) -> None:
    # Twins of one model: oneDNN did 49.0 % of the baseline's iteration and 52.7 % of the other's.
    before, after = (
        cell(p50_ms, family, compute=4.9, reorder=0, other=0, primitives=5, reorders=0, fused=0)
        for p50_ms, family in ((10.0, "unobserved"), (ms, isa))
    )
    causes = {row.main_cause for row in rank([before, after], before)}
    assert causes == ({"-", "time outside oneDNN (-0.7 of -0.7 ms)"} if ms < 10 else {"-"})


def test_reorders_that_came_are_no_arithmetic_that_moved_and_a_product_that_came_is() -> None:
    before = cell(10.0, "unobserved", compute=4.9, reorder=0, other=0, primitives=5, reorders=0)
    more_reorders = cell(11.0, "avx512", compute=5.6, reorder=1.0, other=0, primitives=8, reorders=3)
    assert cause.main_cause(before, more_reorders) == "reorders per iteration 0 -> 3 (+1 of +1 ms)"
    more_products = cell(9.0, "avx512", compute=5.0, reorder=0, other=0, primitives=7, reorders=0)
    assert cause.main_cause(before, more_products) == "arithmetic moved into oneDNN (-1 of -1 ms)"
    assert cause.main_cause(more_products, before) == "arithmetic moved out of oneDNN (+1 of +1 ms)"


def test_arithmetic_that_left_onednn_altogether_has_moved_whatever_share_it_had_and_its_kernel_is_named() -> None:
    # An upgrade whose oneDNN had no such kernel: what it had done took 48 % of the iteration before.
    before = cell(1.63, "unobserved", compute=0.78, reorder=0.01, other=0, primitives=2, reorders=1)
    before = replace(before, captures={"onednn.kernel": "brg_conv_fwd:avx10_1_512_amx"})
    after = cell(37.2, "unobserved", compute=0, reorder=0, other=0, primitives=0, reorders=0)
    moved = "arithmetic moved {} oneDNN's brg_conv_fwd:avx10_1_512_amx"
    assert cause.main_cause(before, after) == f"{moved.format('out of')} (+35.6 of +35.6 ms)"
    assert cause.main_cause(after, before) == f"{moved.format('into')} (-35.6 of -35.6 ms)"


def test_without_a_count_that_differs_the_part_is_named_alone() -> None:
    before, after = cell(20, compute=10, reorder=0, other=0), cell(12, compute=3, reorder=0, other=0)
    assert cause.main_cause(before, after) == "time in convolution / matmul (-7 of -8 ms)"


def test_other_instructions_are_named_by_family() -> None:
    before = cell(20, compute=18, reorder=0, other=0)
    after = cell(5, "avx512_core_vnni", compute=3, reorder=0, other=0)
    assert cause.main_cause(before, after) == "kernels avx512 -> avx512_core_vnni (-15 of -15 ms)"


# A product in bf16 under two releases of torch: it fell back to oneDNN's reference implementation.
TEMPLATE = "onednn_verbose,v1,primitive,info,template:operation,engine,primitive,implementation,prop_kind,"
TEMPLATE += "memory_descriptors,attributes,auxiliary,problem_desc,exec_time"
PRODUCT = (
    "onednn_verbose,v1,primitive,exec,cpu,matmul,{kernel},undef,src:bf16::blocked:ab::f0 wei:bf16::blocked:ab::f0 "
    "dst:bf16::blocked:ab::f0,attr-scratchpad:user,,1024x1024:1024x1024,{ms}"
)


def with_product(kernel: str, ms: float) -> CellRow:
    """A cell whose iteration is one product, as oneDNN's log has it."""
    log = onednn.parse(f"{TEMPLATE}\n#### step 0 torch\n{PRODUCT.format(kernel=kernel, ms=ms)}\n".splitlines(True))
    summary = kernels.summarize(log, {"torch": [ms / 1e3]})
    measured = cell(ms, summary.main_isa, compute=1e3 * summary.seconds, reorder=0, other=0)
    return replace(measured, captures={"onednn.kernel": summary.main_kernel})


def test_an_upgrade_that_falls_back_to_a_reference_kernel_is_named_by_the_kernels() -> None:
    before, after = with_product("brg_matmul:avx512_core_bf16", 0.75), with_product("ref:any", 1039.0)
    assert cause.main_cause(before, after) == "kernels brg_matmul -> ref (+1038 of +1038 ms)"
    assert cause.main_cause(after, before) == "kernels ref -> brg_matmul (-1038 of -1038 ms)"
    assert "(kernels brg_matmul -> ref)" in cause.sentence(before, after)


def test_a_small_difference_has_no_cause() -> None:
    before = cell(20, compute=10, reorder=8, other=0, reorders=3)
    assert cause.main_cause(before, cell(19.5, compute=10, reorder=0, other=0, reorders=0)) == "-"
    assert cause.main_cause(before, before) == "-"


def test_fewer_reorders_are_no_reason_for_more_time_in_them() -> None:
    before = cell(20, compute=10, reorder=4, other=0, reorders=158)
    after = cell(30, compute=10, reorder=12, other=0, reorders=106)
    assert cause.main_cause(before, after) == "time in reorders (+8 of +10 ms)"


def main_cause_with_rounds(*medians_ms: tuple[float, float]) -> str:
    """What a ranking names as the cause, of a cell with these medians beside its baseline's."""
    before = cell(20, compute=10, reorder=8, other=0, reorders=3)
    after = cell(12, compute=10, reorder=0, other=0, reorders=0)
    before = replace(before, medians_s=tuple(base_ms / 1e3 for base_ms, _ in medians_ms))
    after = replace(after, medians_s=tuple(ms / 1e3 for _, ms in medians_ms))
    rows = {row.is_baseline: row for row in rank([before, after], before)}
    return rows[False].main_cause


def test_a_difference_that_the_rounds_do_not_show_has_no_cause() -> None:
    assert main_cause_with_rounds((20, 12), (14, 19), (24, 10)) == "-"
    assert main_cause_with_rounds((20, 12), (20.1, 12.1), (19.9, 11.9)).startswith("reorders")


def test_the_baseline_wrong_cells_and_cells_of_other_work_have_no_cause() -> None:
    base = cell(20, compute=10, reorder=8, other=0, reorders=3)
    fast = cell(12, compute=10, reorder=0, other=0, reorders=0)
    others: list[CellRow] = [replace(fast, quality="wrong"), replace(fast, axes={**fast.axes, "model": "large"})]
    assert {row.main_cause for row in rank([base, *others], base)} == {"-"}


def test_what_was_not_captured_explains_nothing() -> None:
    assert cause.main_cause(cell(20), cell(10)) == "not seen"


def test_a_part_that_moved_the_other_way_is_not_the_cause() -> None:
    before = cell(20, compute=10, reorder=0, other=0, reorders=0)
    after = cell(10, compute=2, reorder=4, other=0, reorders=4)
    assert "reorders" not in cause.main_cause(before, after)


def test_without_a_picture_of_any_cell_no_file_is_written(tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("pictures") / "breakdown.png"
    empty, captured = cell(20), cell(20, compute=10, reorder=8, other=0)
    breakdown.draw([Row(empty, empty.labels)], ["allocator"], file, "nothing captured")
    assert not file.exists()
    breakdown.draw([Row(captured, captured.labels)], ["allocator"], file, "captured")
    assert file.stat().st_size > 1000


def test_changes_are_written_without_exponents() -> None:
    assert [cause.signed(ms) for ms in (-1093.4, 0.1234, 8.0, 0.0)] == ["-1093", "+0.123", "+8", "+0"]


def test_operators_of_two_cells_are_set_side_by_side_largest_change_first() -> None:
    before: dict[str, list[Any]] = {"operator": ["aten::conv2d", "aten::relu", "aten::add"], "ms": [16.4, 3.0, 1.0]}
    after: dict[str, list[Any]] = {"operator": ["aten::conv2d", "fused", "aten::add"], "ms": [6.4, 2.0, 1.1]}
    changes = operators.difference(before, after)
    assert changes[0].text == "aten::conv2d 16.4 -> 6.4"
    assert [change.name for change in changes] == ["aten::conv2d", "aten::relu", "fused", "aten::add"]
    assert operators.difference({}, after)[0].text == "aten::conv2d 0 -> 6.4"
