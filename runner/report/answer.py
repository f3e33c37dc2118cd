"""A sweep's answer in one sentence, with what was measured: it stands above the ranking. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runner.analysis.ranking import Row, warning
from runner.analysis.verdict import verdict
from runner.protocol.cell import ABSENT, WORKED_ON

# How the axes of WORKED_ON are said aloud; the value of any other stands for itself.
_ALOUD = {"batch_size": "batch {}", "sequence_length": "sequence length {}"}


def common_work(rows: Sequence[Row]) -> Mapping[str, str]:
    """What all cells worked on, by axis; what they differ in is in their names."""
    values = {axis: {row.labels.get(axis, ABSENT) for row in rows} for axis in WORKED_ON}
    common = {axis: next(iter(of_cells)) for axis, of_cells in values.items() if len(of_cells) == 1}
    return {axis: value for axis, value in common.items() if value not in (ABSENT, "none")}


def sentence(rows: Sequence[Row], distinguishing: Sequence[str]) -> str:
    """The verdict with the model, batch size and precision that were measured.

    The `warning` about contaminated rounds is left out: it stands by itself.
    """
    aloud = [_ALOUD.get(axis, "{}").format(value) for axis, value in common_work(rows).items()]
    plain = verdict(rows, distinguishing).sentence.removeprefix(warning(rows)).strip()
    return f"{', '.join(aloud)}: {plain}" if aloud else plain
