"""Operations on many cells: the product, exclude and include rules, the order of rounds, distinguishing axes. Pure."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

from runner.protocol.cell import ABSENT, AXES, ENTRIES, owner_of
from runner.protocol.declaration import as_text
from runner.protocol.errors import RunnerError

T = TypeVar("T")


def combinations(choices: Mapping[str, Sequence[str]]) -> list[dict[str, str]]:
    """The product of all choices, last key varying fastest, as override key -> value."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def check_rule(rule: object, where: str) -> dict[str, tuple[str, ...]]:
    """An exclude or include rule as axis -> accepted values.

    Raises:
        RunnerError: the rule is not a mapping, is empty, or names something that is not an axis.
    """
    if not isinstance(rule, Mapping) or not rule:
        raise RunnerError(
            f"{where}: {rule!r} must be a mapping of axes to values, like {{allocator: jemalloc, ipex: on}}"
        )
    checked = {}
    for axis, value in rule.items():
        if axis not in AXES:
            raise RunnerError(f"{where}: {axis!r} is not an axis; the axes are {', '.join(AXES)}")
        values = value if isinstance(value, (list, tuple)) else [value]
        checked[str(axis)] = tuple(as_text(value, ENTRIES[str(axis)].declaration) for value in values)
    return checked


def matches(rule: Mapping[str, Sequence[str]], axes: Mapping[str, str]) -> bool:
    """Whether a cell's axes have, for every axis of the rule, one of its values."""
    return all(axes.get(axis) in values for axis, values in rule.items())


def rounds_in_order(cells: Sequence[T], rounds: int, seed: int) -> list[tuple[int, T]]:
    """Every cell once per round, each round in a random order of its own, so that drift affects all cells equally.

    The order is a function of ``seed`` and the round only.
    """
    plan: list[tuple[int, T]] = []
    for number in range(rounds):
        block = list(cells)
        random.Random(f"{seed}/{number}").shuffle(block)
        plan.extend((number, cell) for cell in block)
    return plan


def distinguishing_axes(labels: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """The distinguishing axes: two cells that are equal in them are the same configuration.

    They are the axes with several values, and the settings that differ other than by the value of their axis:
    jemalloc's environment follows ``allocator`` and adds nothing. What else the labels have (a host, a version) counts
    as a setting of no axis.

    Args:
        labels: name -> value of each cell, with the same names in every cell.
    """
    if not labels:
        return ()

    def differs(name: str) -> bool:
        owner = None if name in AXES else owner_of(name)
        pairs = {(cell.get(owner, ABSENT) if owner else ABSENT, cell[name]) for cell in labels}
        return len(pairs) > len({owner_value for owner_value, _ in pairs})

    names = [*(axis for axis in AXES if axis in labels[0]), *(name for name in labels[0] if name not in AXES)]
    return tuple(name for name in names if differs(name))
