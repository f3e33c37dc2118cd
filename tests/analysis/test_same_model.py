"""Torch builds that made another model from the same seed get no speed-up over each other, and it is said why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner.analysis import effects, same_model
from runner.analysis.comparison import compare
from runner.analysis.ranking import rank
from runner.protocol.evidence import ModelEvidence
from runner.results import cells
from runner.results.cells import CellRow, Cells, Origin
from tests.builders import compared_cell

MODEL = ModelEvidence("aaaa", [[0.5, 2.0]], [[1.0, -2.0, 0.5], [3.0, 0.0, 4.0]])
ROUNDED = replace(MODEL, inputs=[[0.5, 2.00001]], outputs=[[1.0, -2.0, 0.5000004], [3.0, 0.0, 4.0]])
# As transformers 5 makes a ViT from the seed of transformers 4.
OTHER = replace(MODEL, weights="bbbb", outputs=[[1.0, -2.0, 0.5], [0.0, 5.0, 0.0]])


def on(build: str, model: ModelEvidence | None, seconds: float = 0.1, number: int = 1, seed: str = "0") -> CellRow:
    cell = compared_cell(number, seconds, torch=build)
    return replace(cell, sweep="s", model=model, settings={**cell.settings, "seed": seed})


BUNDLED = on("bundled", MODEL, 0.2, 0)


@pytest.mark.parametrize("model", [MODEL, ROUNDED, None])
def test_builds_that_compute_the_same_or_say_nothing_are_compared(model: ModelEvidence | None) -> None:
    cell = on("2.14.1", model)
    assert same_model.difference(BUNDLED, cell) == ""
    row = next(row for row in rank([BUNDLED, cell], BUNDLED) if not row.is_baseline)
    assert row.speedup == pytest.approx(2, rel=0.05)


def test_a_model_that_differs_between_builds_has_no_speed_up_and_a_note() -> None:
    cell = on("2.14.1", OTHER)
    rows = rank([BUNDLED, cell], BUNDLED)
    row = next(row for row in rows if not row.is_baseline)
    assert (row.speedup, row.verdict, row.on_front) == (None, None, False)
    assert row.cell.notes[0].startswith(
        "the model differs between torch builds: its weights differ, its fp32 outputs are 1.4 apart (the same seed made"
    )
    assert effects.effects(rows, ("torch",)) == []


def test_cells_of_another_model_take_no_part_in_the_effects_of_a_comparison() -> None:
    builds = [
        replace(on(build, model, 0.1 * (2 + number), number), axes={**BUNDLED.axes, "torch": build, "threads": threads})
        for number, (build, model, threads) in enumerate(
            [("bundled", MODEL, "1"), ("bundled", MODEL, "2"), ("2.14.1", OTHER, "1"), ("2.14.1", OTHER, "2")]
        )
    ]
    comparison = compare(Cells(builds, [Origin("s", "h", {}, {})]), {})
    assert {effect.axis for effect in comparison.effects} == {"threads"}
    same = compare(Cells([replace(cell, model=MODEL) for cell in builds], [Origin("s", "h", {}, {})]), {})
    assert {effect.axis for effect in same.effects} == {"threads", "torch"}


def test_the_inputs_and_the_shape_of_the_outputs_are_looked_at() -> None:
    inputs = same_model.difference(BUNDLED, on("2.14.1", replace(MODEL, inputs=[[0.6, 2.0]])))
    assert inputs.startswith("the model differs between torch builds: its inputs differ (")
    fewer = same_model.difference(BUNDLED, on("2.14.1", replace(MODEL, outputs=MODEL.outputs[:1])))
    assert "torch builds: its fp32 outputs can't be compared (" in fewer


def test_cells_of_other_work_are_not_asked_for_the_same_model() -> None:
    bert = replace(on("2.14.1", OTHER), axes={**BUNDLED.axes, "torch": "2.14.1", "model": "bert"})
    row = next(row for row in rank([BUNDLED, bert], BUNDLED) if not row.is_baseline)
    assert row.cell.notes == ()


def test_cells_of_one_build_share_a_reference_and_other_seeds_are_meant_to_differ() -> None:
    assert same_model.difference(BUNDLED, on("bundled", OTHER)) == ""
    assert same_model.difference(BUNDLED, on("2.14.1", OTHER, seed="1")) == ""
    before_an_upgrade = replace(on("bundled", OTHER), sweep="earlier")
    assert "the model differs" in same_model.difference(BUNDLED, before_an_upgrade)


def test_what_a_model_is_is_kept_in_the_table_of_cells(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    cells.save([BUNDLED, on("2.14.1", None)], Origin("s", "h", {}, {}), tmp_path / "s")
    read = cells.read([tmp_path / "s"])
    assert [row.model for row in read.rows] == [MODEL, None]
