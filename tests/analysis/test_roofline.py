"""How far a cell is from what its cores can do: the arithmetic on known figures, and what is never believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from runner.analysis import roofline
from runner.analysis.roofline import Roof
from runner.protocol.peaks import Peaks
from runner.results import peaks as kept
from runner.results.cells import CellRow, Cells, Origin
from runner.results.metric_names import Metric
from runner.results.peaks import HostPeaks
from tests.builders import PEAKS, axes, cell

# ResNet-50, 8 images: 53 convolutions and a product, 8.174 GFLOP per image; 25.6 million weights, 1.2 million pixels.
FLOP, ELEMENTS = 8 * 8.174e9, 26.8e6


def resnet(p50_ms: float, precision: str = "fp32", figures: Mapping[str, float] | None = None) -> CellRow:
    """A cell of two threads that does the operations of eight images; ``figures`` come on top of what it counted."""
    row = cell(p50_ms, axes_=axes(precision=precision))
    of_cell: dict[str, float] = {
        Metric.FLOP: FLOP,
        Metric.ELEMENTS: ELEMENTS,
        Metric.THREADS: 2.0,
        Metric.CORES_BUSY: 2.0,
    }
    return replace(row, metrics={**row.metrics, **of_cell, **(figures or {})}, torch=PEAKS.torch, cpus=(0, 1))


def placed(row: CellRow, peaks: Peaks = PEAKS) -> CellRow:
    return replace(row, metrics={**row.metrics, **roofline.figures(row, peaks)})


@pytest.mark.parametrize(
    ("precision", "p50_ms", "of_registers", "of_gemm"),
    [
        ("int8", 80.6, 86.4, 91.5),
        ("bf16", 156.5, 88.9, 95.0),
        ("fp32", 317.8, 87.6, 102.9),
        ("fp32", 374.3, 74.3, 87.4),
    ],
)
def test_known_times_of_resnet50_are_the_known_shares_of_the_peaks(
    precision: str, p50_ms: float, of_registers: float, of_gemm: float
) -> None:
    found = roofline.position(placed(resnet(p50_ms, precision)))
    assert found is not None
    assert found.of_registers_pct == pytest.approx(of_registers, abs=0.1)
    assert found.of_gemm_pct == pytest.approx(of_gemm, abs=0.1)
    assert (found.dtype, found.roof) == (precision, Roof.COMPUTE)
    assert found.short == f"{of_registers:.0f} % of {precision}"


def test_near_the_peak_there_is_nothing_left_to_win_but_fewer_operations() -> None:
    near, far = (roofline.position(placed(resnet(ms))) for ms in (317.8, 374.3))
    assert near is not None
    assert far is not None
    assert near.sentence == (
        "205.8 GOP/s, 88 % of the fp32 peak (103 % of torch's best product of matrices): "
        "nothing left to win but fewer operations"
    )
    assert far.sentence == "174.7 GOP/s, 74 % of the fp32 peak (87 % of torch's best product of matrices)"


def test_weights_that_are_read_at_the_memorys_bandwidth_are_under_its_roof() -> None:
    # One sample through 100 million weights of four bytes: 16 ms at 25 GB/s, and 200 million operations.
    row = resnet(17.0, figures={Metric.FLOP: 2e8, Metric.ELEMENTS: 1e8})
    found = roofline.position(placed(row))
    assert found is not None
    assert (found.roof, found.short) == (Roof.MEMORY, "94 % of memory")
    assert found.sentence.endswith("takes 94 % of the bandwidth: nothing left to win but fewer bytes")


def test_weights_that_stay_in_the_caches_are_not_under_the_memorys_roof() -> None:
    found = roofline.position(placed(resnet(2.0, figures={Metric.FLOP: 2e8, Metric.ELEMENTS: 1e8})))
    assert found is not None
    assert found.of_memory_pct == pytest.approx(800)
    assert found.roof == Roof.NEITHER


@pytest.mark.parametrize(
    ("figures", "why"),
    [
        ({Metric.KERNEL_TIME: 400.0, Metric.MINOR_FAULTS: 9e5}, "page faults"),
        ({Metric.KERNEL_TIME: 400.0, Metric.MINOR_FAULTS: 10.0}, "the kernel"),
        ({Metric.REORDER_TIME: 400.0}, "reorders"),
        ({Metric.CORES_BUSY: 1.0}, "idle cores"),
        ({Metric.CORES_BUSY: 1.0, "contamination/foreign_cpu_pct": 90.0}, "the work of others"),
        ({}, "overhead"),
    ],
)
def test_what_takes_the_time_of_a_cell_under_no_roof_is_named(figures: dict[str, float], why: str) -> None:
    found = roofline.position(placed(resnet(2000.0, figures=figures)))
    assert found is not None
    assert (found.roof, found.why) == (Roof.NEITHER, why)
    assert found.sentence.endswith(f"neither arithmetic nor memory explains most of its time; {why} may")


def test_more_than_the_registers_can_do_is_an_error_of_the_count_and_shown_as_one() -> None:
    found = roofline.position(placed(resnet(100.0)))
    assert found is not None
    assert (found.roof, found.short) == (Roof.MISCOUNTED, "ERROR 278 % of fp32")
    assert "nothing exceeds that: its operations are counted wrongly" in found.sentence


def test_more_than_torchs_best_product_is_none_where_the_registers_were_not_measured() -> None:
    found = roofline.position(placed(resnet(317.8), replace(PEAKS, registers={})))
    assert found is not None
    assert (found.roof, found.of_registers_pct) == (Roof.COMPUTE, None)
    assert found.short == "103 % of fp32"


def test_a_mixture_is_measured_against_the_fastest_arithmetic_that_has_a_share_of_it() -> None:
    logged: dict[str, float] = {Metric.WITNESSED_FLOP: FLOP}
    mixture = resnet(100.0, figures={"onednn/dtype_float32_pct": 60.0, "onednn/dtype_bfloat16_pct": 40.0, **logged})
    speck = resnet(100.0, figures={"onednn/dtype_float32_pct": 95.0, "onednn/dtype_bfloat16_pct": 5.0, **logged})
    # oneDNN logged a small part of the model: what computed the rest is what its precision says.
    part = resnet(100.0, "int8", {"onednn/dtype_float32_pct": 100.0, Metric.WITNESSED_FLOP: 0.1 * FLOP})
    assert [roofline.arithmetic(row) for row in (mixture, speck, part)] == ["bf16", "fp32", "int8"]


def test_float32_that_may_compute_in_bfloat16_is_under_the_roof_of_bfloat16() -> None:
    row = resnet(100.0)
    assert roofline.arithmetic(replace(row, settings={"fp32_math": "bf16"})) == "bf16"


def test_instances_do_their_operations_at_the_same_time() -> None:
    row = resnet(635.6)
    both = placed(replace(row, axes={**row.axes, "instances": "2"}))
    assert both.metrics[Metric.OF_REGISTERS] == pytest.approx(87.6, abs=0.1)


@pytest.mark.parametrize(
    "row",
    [
        replace(resnet(300.0), metrics={Metric.P50: 300.0}),  # an operator that can't be counted
        resnet(300.0, "int4_weight"),  # of which no log says what it is unpacked to
        replace(resnet(300.0), quality="another output"),
        replace(resnet(300.0), axes=axes(precision="fp32", scenario="torchserve")),
    ],
)
def test_where_operations_or_arithmetic_are_not_known_it_is_unobserved(row: CellRow) -> None:
    assert roofline.figures(row, PEAKS) == {}
    assert roofline.short(row) == "unobserved"


def test_two_witnesses_that_disagree_are_named_and_a_log_that_has_less_is_none() -> None:
    twice = roofline.disagreement(resnet(300.0, figures={Metric.WITNESSED_FLOP: 2 * FLOP}))
    assert twice == (
        "the witnesses of its operations disagree: 65.39 GFLOP in the fp32 reference, 130.8 by oneDNN's log and the "
        "profiler"
    )
    assert [
        roofline.disagreement(resnet(300.0, figures={Metric.WITNESSED_FLOP: f * FLOP})) for f in (0.0, 0.5, 1.01)
    ] == [""] * 3


def test_peaks_that_are_measured_later_place_the_cells_of_an_older_sweep(tmp_path: Path) -> None:
    cells = Cells([resnet(317.8)], [Origin("s", PEAKS.host_id, {}, {})])
    before = roofline.placed(cells, tmp_path)
    assert roofline.position(before.rows[0]) is None
    assert "python -m runner peak measures it once" in roofline.tip(before.rows)
    kept.save(PEAKS, tmp_path)
    after = roofline.placed(cells, tmp_path)
    assert after.rows[0].metrics[Metric.OF_REGISTERS] == pytest.approx(87.6, abs=0.1)
    assert roofline.tip(after.rows) == ""


def test_stored_figures_stay_where_this_folder_has_no_peaks_of_their_host(tmp_path: Path) -> None:
    stored = placed(resnet(317.8))
    assert roofline.with_peaks(stored, HostPeaks(tmp_path, "another")) == stored


def test_peaks_of_other_cores_or_another_build_place_nothing(tmp_path: Path) -> None:
    kept.save(PEAKS, tmp_path)
    host = HostPeaks(tmp_path, PEAKS.host_id)
    others = (replace(resnet(317.8), torch="2.14.1"), replace(resnet(317.8), cpus=(2, 3)), resnet(317.8))
    threads = replace(others[2], metrics={**others[2].metrics, Metric.THREADS: 1.0})
    assert [roofline.position(roofline.with_peaks(row, host)) for row in (*others[:2], threads)] == [None] * 3
