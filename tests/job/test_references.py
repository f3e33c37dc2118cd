"""Which cells share the fp32 reference that a sweep keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner.job import references
from runner.protocol.cell import Cell, Model
from tests.conftest import CELL

SWEEP = Path("sweep")
IDENTITY = {"torch": "2.8.0", "model's code": "1a2b", "placement": "cores 0-1", "libtcmalloc": "4.5"}


def kept(cell: Cell, input_sets: int = 2, **identity: str) -> Path:
    return references.kept_file(SWEEP, cell, {**IDENTITY, **identity}, input_sets)


def test_cells_that_differ_in_how_the_model_is_run_share_a_reference() -> None:
    others = [replace(CELL, ipex="on"), replace(CELL, memory_format="channels_last"), replace(CELL, warmup=9)]
    assert {kept(other) for other in others} == {kept(CELL)}
    assert kept(CELL, placement="cores 0", libtcmalloc="9") == kept(CELL)
    assert kept(CELL).parent == SWEEP / references.FOLDER


@pytest.mark.parametrize(
    "change",
    [
        {"batch_size": 7},
        {"sequence_length": 7},
        {"seed": 7},
        {"model": Model("another", "another.target")},
        {"model": Model("resnet50", "runner.worker.models.resnet50", {"image_size": 7})},
    ],
)
def test_cells_that_differ_in_what_is_computed_do_not(change: dict[str, object]) -> None:
    assert kept(replace(CELL, **change)) != kept(CELL)  # type: ignore[arg-type]


def test_other_code_or_other_inputs_take_another_reference() -> None:
    of_other_code = references.kept_file(SWEEP, CELL, {**IDENTITY, "model's code": "3c4d"}, 2)
    assert len({kept(CELL), kept(CELL, 3), kept(CELL, torch="2.9.0"), of_other_code}) == 4
