"""The roofline of a sweep in its report, and the words about it everywhere else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from runner.analysis.explanation import explain
from runner.analysis.ranking import Ranking, Row, rank
from runner.analysis.verdict import of_cell, verdict
from runner.report import data, descriptions, notes, roofline_picture
from runner.report.columns import COLUMNS, Mark, Place, columns
from runner.results.cells import CellRow
from runner.results.circumstances import Circumstances
from runner.results.metric_names import Metric
from tests.analysis.test_roofline import placed, resnet

_OF_PEAK = next(column for column in COLUMNS if column.heading == "of peak")


def cells(*times: tuple[str, float]) -> list[CellRow]:
    """Cells with positions, the first one the baseline."""
    return [
        replace(placed(resnet(ms, precision)), cell_id=f"{number:012x}", is_baseline=number == 0)
        for number, (precision, ms) in enumerate(times)
    ]


def ranking(rows: list[CellRow]) -> Ranking:
    return Ranking(rank(rows, rows[0]), ("precision",), {})


THREE = (("fp32", 374.3), ("bf16", 156.5), ("int8", 80.6))


def circles(picture: str) -> dict[str, tuple[float, float]]:
    """color -> place of the only circle of that color."""
    found = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="6" fill="(#\w+)"', picture)
    return {color: (float(x), float(y)) for x, y, color in found}


def test_each_cell_is_a_numbered_point_and_a_line_of_the_list_below() -> None:
    picture = roofline_picture.draw(ranking(cells(*THREE)))
    assert picture is not None
    assert picture.count("<circle") == 3
    assert "1. 86 % of int8: int8" in picture
    assert "3. 74 % of fp32: fp32" in picture


def test_the_roofs_are_the_peaks_that_were_measured() -> None:
    picture = roofline_picture.draw(ranking(cells(*THREE)))
    assert picture is not None
    for words in ("fp32: 235 GOP/s", "bf16: 470 GOP/s", "int8: 939 GOP/s", "memory: 25 GB/s"):
        assert words in picture


def test_a_faster_cell_stands_higher_and_one_with_narrower_weights_further_right() -> None:
    picture = roofline_picture.draw(ranking(cells(*THREE)))
    assert picture is not None
    (fp32, bf16, int8) = (circles(picture)[color] for color in ("#0072B2", "#009E73", "#D55E00"))
    assert fp32[1] > bf16[1] > int8[1]
    assert fp32[0] < bf16[0] < int8[0]


def test_without_peaks_there_is_neither_picture_nor_column_nor_sentence() -> None:
    rows = [replace(resnet(374.3), is_baseline=True)]
    ranked = ranking(rows)
    assert roofline_picture.draw(ranked) is None
    assert _OF_PEAK not in columns(Place.PAGE, ranked.rows)
    assert "peak" not in " ".join(verdict(ranked.rows, ()).remarks)


def test_the_column_says_what_the_cell_does_of_which_peak_and_marks_an_error_of_the_count() -> None:
    rows = ranking([*cells(("fp32", 374.3), ("fp32", 100.0)), replace(resnet(500.0, "int4_weight"), cell_id="z")]).rows
    assert [(_OF_PEAK.text(row), _OF_PEAK.mark(row)) for row in rows] == [
        ("ERROR 278 % of fp32", Mark.BAD),
        ("74 % of fp32", Mark.NONE),
        ("unobserved", Mark.NONE),
    ]
    assert "nothing exceeds that" in " ".join(notes.below(rows, ("precision",)))


def test_the_verdict_and_the_page_of_a_cell_say_that_nothing_is_left_to_win() -> None:
    rows = ranking(cells(*THREE)).rows
    sentence = (
        "811.3 GOP/s, 86 % of the int8 peak (91 % of torch's best product of matrices): "
        "nothing left to win but fewer operations."
    )
    assert f"The fastest does {sentence}" in verdict(rows, ("precision",)).remarks
    assert of_cell(rows[0], base(rows), ("precision",)).count(f"It does {sentence}") == 1
    assert sentence in descriptions.cell_end(rows[0], base(rows), ("precision",), Circumstances()).description


def test_an_explanation_says_of_both_cells_how_far_they_are_from_the_limit() -> None:
    rows = ranking(cells(*THREE[:2])).rows
    found = explain(("A", "B"), (base(rows), rows[0]), ({}, {}), "", ({}, {}))
    assert [line[:40] for line in found.limits] == [
        "A does 174.7 GOP/s, 74 % of the fp32 pea",
        "B does 417.8 GOP/s, 89 % of the bf16 pea",
    ]


def test_mlflow_gets_the_figures_and_json_the_roof() -> None:
    rows = ranking(cells(*THREE)).rows
    end = descriptions.cell_end(rows[0], base(rows), ("precision",), Circumstances())
    assert set(end.roofline) == {
        Metric.BYTES, Metric.GOP_PER_S, Metric.OF_REGISTERS, Metric.OF_GEMM, Metric.OF_MEMORY
    }  # fmt: skip
    found = data.cell(rows[0], 1)
    assert (round(found["of_registers_pct"]), found["roof"]) == (86, "compute")


def base(rows: Sequence[Row]) -> Row:
    return next(row for row in rows if row.is_baseline)
