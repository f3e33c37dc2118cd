"""Whether what was captured of a cell is of iterations like the timed ones: only then it is shown as a fact. Pure."""

from __future__ import annotations

from runner.capture.steps import UNLIKE_FACTOR
from runner.protocol.verdicts import UNLIKE
from runner.results.cells import CellRow

# Capture -> the figure that says how long its iterations took.
_STEP_MS = {"itt": "itt/step_p50_ms"}
_DRIFT = "captures/drift_pct"


def why_not_shown(cell: CellRow, capture: str) -> str:
    """Why a capture's tables and timeline are not shown, in words; empty if they are.

    Args:
        cell: whose capture it is.
        capture: ``itt``, ``profiler`` or ``onednn``.
    """
    reason = cell.captures.get(f"capture.{capture}", "").partition(f"{UNLIKE}: ")[2]
    if reason or cell.is_served or not cell.p50_ms:
        return reason
    step_ms = cell.metrics.get(_STEP_MS.get(capture, ""), 0.0)
    if step_ms > UNLIKE_FACTOR * cell.p50_ms:
        return f"its iterations took {step_ms:.4g} ms, the timed ones {cell.p50_ms:.4g} ms (medians)"
    drift = cell.metrics.get(_DRIFT, 0.0)
    if drift > 100 * (UNLIKE_FACTOR - 1):
        return f"iterations beside it, which nothing recorded, took {drift:.0f} % longer than the timed ones"
    return ""
