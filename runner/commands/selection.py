"""Which cells of which sweep the words of a command line mean: an id, axes, values, fastest, slowest, baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.matrix.rules import distinguishing_axes
from runner.protocol.cell import ABSENT
from runner.protocol.errors import RunnerError
from runner.report import terminal
from runner.results import cells, sweeps
from runner.results.cells import CellRow
from runner.results.outcome import captures_folder

FASTEST, SLOWEST, BASELINE = "fastest", "slowest", "baseline"
PLACES = (FASTEST, SLOWEST, BASELINE)


@dataclass(frozen=True)
class SweepCell:
    """A cell, and the folder of its sweep."""

    sweep: Path
    cell: CellRow
    as_baseline: str = ""
    """What the words left open and the sweep's baseline decided, like ``ipex=off``; empty if nothing was left open."""

    @property
    def captures(self) -> Path:
        """The folder with the captures of the cell."""
        return captures_folder(self.sweep, self.cell.cell_id)


def find(text: str, default: str | None, mlruns: Path) -> SweepCell:
    """The measured cell that ``text`` means.

    Args:
        default: the sweep of a cell that names none; None for the newest with results.

    Raises:
        RunnerError: no cell is meant, or several.
    """
    name, colon, selector = text.rpartition(":")
    folder = sweeps.find(name if colon else default, mlruns)
    return choose(selector, folder, measured(folder), text)


def choose(selector: str, folder: Path, rows: Sequence[CellRow], text: str) -> SweepCell:
    """The one of these cells of a sweep that a selector means.

    Where it means several, and one of them is like the baseline in all else, that one is meant.

    Raises:
        RunnerError: no cell is meant, or several.
    """
    candidates = _select(selector, rows, text)
    if len(candidates) == 1:
        return SweepCell(folder, candidates[0])
    baseline = next((row for row in rows if row.is_baseline), None)
    is_id = "=" not in selector and any(row.cell_id.startswith(selector) for row in candidates)
    if candidates and baseline is not None and not is_id:
        left_open = distinguishing_axes(same_keys([row.labels for row in candidates]))
        like_it = {key: baseline.labels.get(key, ABSENT) for key in left_open}
        alike = [row for row in candidates if all(row.labels.get(key) == like_it[key] for key in left_open)]
        if len(alike) == 1:
            return SweepCell(folder, alike[0], ", ".join(f"{key}={value}" for key, value in like_it.items()))
    raise RunnerError(f"{text}: {_refusal(candidates, rows, folder.name)}")


def measured(folder: Path) -> list[CellRow]:
    """The cells of a sweep that have a time, fastest first; one that failed in any of its rounds has none."""
    rows = cells.read([folder]).rows
    return sorted((row for row in rows if row.p50_ms is not None), key=lambda row: row.place)


def _select(selector: str, rows: Sequence[CellRow], text: str) -> list[CellRow]:
    """The cells that a selector fits: a place in the ranking, axes, the value of an axis, or the beginning of an id.

    Raises:
        RunnerError: it names an axis that the sweep does not have.
    """
    if selector in (FASTEST, SLOWEST):
        return list(rows[:1] if selector == FASTEST else rows[-1:])
    if selector == BASELINE:
        return [row for row in rows if row.is_baseline]
    if "=" not in selector:
        by_id = [row for row in rows if row.cell_id.startswith(selector)]
        return by_id or _with_values(selector.split(","), rows)
    wanted = dict(pair.split("=", 1) for pair in selector.split(",") if "=" in pair)
    unknown = [axis for axis in wanted if rows and axis not in rows[0].labels]
    if unknown:
        raise RunnerError(f"{text}: {unknown[0]!r} is not an axis; the axes are {', '.join(rows[0].axes)}")
    return [row for row in rows if all(row.labels.get(key) == value for key, value in wanted.items())]


def _with_values(values: Sequence[str], rows: Sequence[CellRow]) -> list[CellRow]:
    """The cells that have each of these values in one of the axes that differ among the cells."""
    axes = distinguishing_axes(same_keys([row.axes for row in rows]))
    return [row for row in rows if all(any(row.axes.get(axis) == value for axis in axes) for value in values)]


def _refusal(candidates: Sequence[CellRow], rows: Sequence[CellRow], sweep: str) -> str:
    """Why a selector names no one cell, and which cells there are to choose from."""
    if not rows:
        return f"no cell of {sweep} was measured"
    choices = sorted(candidates or rows, key=lambda row: row.cell_id)
    distinguishing = distinguishing_axes(same_keys([row.labels for row in rows])) or ("model",)
    named = "; ".join(
        f"{row.cell_id} ({terminal.label({**dict.fromkeys(distinguishing, ABSENT), **row.labels}, distinguishing)})"
        for row in choices
    )
    problem = "means several measured cells" if candidates else "is not a measured cell"
    places = "" if candidates else f"{', '.join(PLACES)}, or "
    return f"{problem} of {sweep}; choose {places}one of {named}"


def same_keys(labels: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The labels of several cells, with the keys of all of them."""
    every = dict.fromkeys((key for its_labels in labels for key in its_labels), ABSENT)
    return [{**every, **its_labels} for its_labels in labels]
