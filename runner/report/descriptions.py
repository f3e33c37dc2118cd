"""What MLflow's runs of a sweep and of its cells say about themselves, as Markdown and in tags. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from runner.analysis import roofline
from runner.analysis.ranking import Row
from runner.analysis.wording import aloud, interval_of, ms, ratio
from runner.protocol.verdicts import OK
from runner.report.answer import measured
from runner.report.columns import COLUMNS
from runner.report.escaping import markdown
from runner.results.circumstances import Circumstances
from runner.results.ledger import CellEnd

_DIFFERENCE = next(column for column in COLUMNS if column.heading == "difference")


def cell_end(row: Row, baseline: Row | None, distinguishing: Sequence[str], circumstances: Circumstances) -> CellEnd:
    """What the ranking says about one cell.

    Args:
        row: the cell.
        baseline: the row that it is compared with; None if the baseline has had no job.
        distinguishing: the axes and settings that distinguish the cells.
        circumstances: where and when they were measured.
    """
    difference = _DIFFERENCE.short(row) if _DIFFERENCE.short else row.answer
    # How long the sweep took says nothing about one of its cells.
    where = measured([row], replace(circumstances, took_s=0.0))
    lines = [markdown(where), f"**{markdown(_conclusion(row, baseline, distinguishing, difference))}**"]
    if row.main_cause != "-":
        lines.append(markdown(f"Main cause: {row.main_cause}."))
    if row.cell.contamination:
        lines.append(markdown(f"Others disturbed it: {row.cell.contamination}."))
    if row.position:
        lines.append(markdown(f"{row.position.sentence}."))
    derived = {str(name): row.metrics[name] for name in roofline.DERIVED if name in row.metrics}
    return CellEnd(row.main_cause, difference, row.speedup, "\n\n".join(lines), row.usd_per_million, derived)


def _conclusion(row: Row, baseline: Row | None, distinguishing: Sequence[str], difference: str) -> str:
    """What came out of one cell, in a sentence."""
    name = aloud(row, distinguishing) or "The only cell"
    if row.cell.failure:
        return f"{name}: {row.cell.status}: {row.cell.failure}"
    if row.p50_ms is None:
        return f"{name} was not measured."
    time = f"{name}: {ms(row)} per iteration (median)"
    if row.is_wrong:
        return f"{time}, but its output is WRONG: {row.cell.quality}"
    if row.is_baseline or baseline is None or row.speedup is None:
        return f"{time}{', the baseline' if row.is_baseline else ''}."
    interval = row.verdict.interval if row.verdict else None
    sure = f", {interval_of(interval)}" if interval else ""
    against = f"{aloud(baseline, distinguishing)}, {ms(baseline)}"
    verdict = f": {difference}" if difference not in ("-", OK) else ""
    return f"{time}, {ratio(row.speedup)} the baseline ({against}){verdict}{sure}."
