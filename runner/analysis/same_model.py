"""Whether two cells ran the same model: what their torch builds computed in fp32 for the same inputs. Pure.

Within a build all cells share one reference. Another build makes its own from the same seed, which need not be the same
model: then a speed-up would compare two models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from runner.results.cells import CellRow

# Relative L2 distance of inputs and outputs below which two builds ran the same model: they differ by less than 1e-6.
_SAME = 1e-4


def difference(first: CellRow, second: CellRow) -> str:
    """In what the models of two cells differ, as a sentence; empty where they are the same, or nothing shows it."""
    if first.model is None or second.model is None or not _may_differ(first, second):
        return ""
    distance = _distance(first.model.outputs, second.model.outputs)
    is_other_input = _distance(first.model.inputs, second.model.inputs) >= _SAME
    if distance < _SAME and not is_other_input:
        return ""
    apart = "can't be compared" if math.isinf(distance) else f"are {distance:.2g} apart"
    parts = ["its weights differ"] if first.model.weights != second.model.weights else []
    parts += ["its inputs differ"] if is_other_input else []
    parts += [f"its fp32 outputs {apart}"] if distance >= _SAME else []
    return (
        f"the model differs between torch builds: {', '.join(parts)} (the same seed made another), so there is no "
        "speed-up across them; measure both in one sweep, which hands the weights over, or give both the same from a "
        "file, as in model.kwargs.weights=FILE"
    )


def _may_differ(first: CellRow, second: CellRow) -> bool:
    """Whether the cells are of different builds, and of the same seed."""
    is_other_build = first.sweep != second.sweep or _of(first.axes, "torch") != _of(second.axes, "torch")
    return is_other_build and _of(first.settings, "seed") == _of(second.settings, "seed")


def _of(table: Mapping[str, str], name: str) -> str:
    return table.get(name, "")


def _distance(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    """The largest relative L2 distance of two tensors; infinite where there are more of them on one side."""
    if len(first) != len(second):
        return math.inf
    return max(map(_of_tensors, first, second), default=0.0)


def _of_tensors(first: Sequence[float], second: Sequence[float]) -> float:
    if len(first) != len(second):
        return math.inf
    norm = math.hypot(*first)
    distance = math.dist(first, second)
    if not distance:
        return 0.0
    return distance / norm if norm else math.inf
