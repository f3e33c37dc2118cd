"""Two cells operator by operator: which took how long in each. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Change:
    """One operator in two cells; 0 where it did not run."""

    name: str
    """The operator's name."""
    before_ms: float
    """The operator's own time in the first cell, in milliseconds per iteration."""
    after_ms: float
    """The operator's own time in the second cell, in milliseconds per iteration."""
    made_of: str = ""
    """The operators that a generated kernel computes; empty for others."""

    @property
    def text(self) -> str:
        """The change in words, like ``aten::conv2d 16.4 -> 6.4``, in ms per iteration."""
        return f"{self.name} {in_ms(self.before_ms)} -> {in_ms(self.after_ms)}"


def in_ms(value: float | None) -> str:
    """Milliseconds with three digits, or with all digits before the decimal point: "0.12", "8.5", "2720", or "-"."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def difference(before: Mapping[str, Sequence[Any]], after: Mapping[str, Sequence[Any]]) -> list[Change]:
    """Operators of two tables (first column the name, second ms per iteration), largest change first."""
    tables = [dict(zip(*list(table.values())[:2], strict=True)) if table else {} for table in (before, after)]
    made_of = {
        name: text
        for table in (before, after)
        for name, text in zip(*(table.get(key, ()) for key in ("kernel", "operators")), strict=True)
    }
    names = dict.fromkeys([*tables[0], *tables[1]])
    changes = [
        Change(name, float(tables[0].get(name, 0.0)), float(tables[1].get(name, 0.0)), made_of.get(name, ""))
        for name in names
    ]
    return sorted(changes, key=lambda change: -abs(change.after_ms - change.before_ms))
