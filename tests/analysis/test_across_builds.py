"""What another torch build gains or loses, in one sentence per model."""

from __future__ import annotations

import re
from dataclasses import replace

from runner.analysis.across_builds import lines
from runner.analysis.ranking import rank
from runner.protocol.evidence import ModelEvidence
from runner.results.cells import CellRow
from tests.builders import compared_cell


def cells(*of_build: tuple[str, str, str, float], model: str = "resnet50") -> list[CellRow]:
    """One cell per (torch, ipex, precision, seconds); the first is the baseline."""
    return [
        replace(
            compared_cell(
                number, seconds, torch=torch, ipex=ipex, precision=precision, model=model, sequence_length="none"
            ),
            sweep="s",
        )
        for number, (torch, ipex, precision, seconds) in enumerate(of_build)
    ]


BOTH = cells(
    ("bundled", "on", "fp32", 0.3178),
    ("bundled", "on", "int8", 0.0806),
    ("bundled", "off", "int8", 0.2),
    ("2.14.1", "off", "int8", 0.0887),
    ("2.14.1", "off", "fp32", 0.3179),
)


def told(some: list[CellRow]) -> list[str]:
    return lines(rank(some, some[0]), 0.05)


def test_what_is_lost_without_ipex_is_said_by_precision_fastest_against_fastest() -> None:
    [line] = told(BOTH)
    start = "without IPEX (torch=2.14.1 against torch=bundled), fastest against fastest, resnet50 batch 2: "
    assert line.startswith(start + "fp32 no difference of ")
    assert re.search(r"; int8 1[01] % slower \(8\d\.\d -> 8\d\.\d ms, 95 % between \d+ and \d+ %\)", line)


def test_a_gain_is_one_and_each_model_has_its_sentence() -> None:
    other = cells(("bundled", "off", "bf16", 0.2), ("2.14.1", "off", "bf16", 0.1), model="bert_base_uncased")
    other = [replace(cell, cell_id=f"b{cell.cell_id}", is_baseline=False) for cell in other]
    first, second = told([*BOTH, *other])
    assert first.startswith("torch=2.14.1 against torch=bundled, fastest against fastest, bert_base_uncased batch 2: ")
    assert re.search(r"bf16 (99|100|101) % faster", first)
    assert second.startswith("without IPEX")
    assert "resnet50 batch 2" in second


def test_models_that_differ_and_disturbed_rounds_give_no_figure() -> None:
    first, second = BOTH[1], BOTH[3]
    models = [ModelEvidence("a", [], [[1.0]]), ModelEvidence("b", [], [[2.0]])]
    other = [replace(cell, model=model) for cell, model in zip((first, second), models, strict=True)]
    assert told(other)[0].endswith("int8 can't be compared: the model differs between torch builds")
    disturbed = [first, replace(second, contamination="a neighbour", contaminated=(0,))]
    assert "int8 can't be trusted: disturbed" in told(disturbed)[0]


def test_a_sweep_of_one_build_has_no_such_sentence() -> None:
    assert told(BOTH[:2]) == []
