"""Whether a cell's output is the model's: its distance from the fp32 eager reference against the precision's tolerance.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OK, UNOBSERVED = "ok", "unobserved"

# figure -> whether more of it is better
_FIGURES = {"rel_l2": False, "cosine": True, "top1_match_pct": True, "max_abs_err": False}


def judge(quality: Mapping[str, Any], tolerance: Mapping[str, float]) -> str:
    """``ok``, or what is wrong with the output in one sentence; ``unobserved`` without figures.

    Args:
        quality: as runner.worker.reference.compare() returns it.
        tolerance: figure -> limit; ``least_rel_l2`` is the gate's and not looked at here.
    """
    if not quality:
        return UNOBSERVED
    if not quality.get("comparable"):
        return str(quality.get("why"))[:1000]
    if not quality.get("finite"):
        return "output with nan or inf"
    for figure, more_is_better in _FIGURES.items():
        limit, value = tolerance.get(figure), quality.get(figure)
        if limit is None or value is None:
            continue
        if type(value) not in (int, float):
            return f"{figure} is {str(value)[:40]!r}, not a number"
        # Written so that nan, which compares false with everything, does not pass.
        if not (value >= limit if more_is_better else value <= limit):
            return f"{figure} {value:.3g} is past the tolerance of {limit:g}"
    return OK
