"""Whether a cell's output is the model's: its distance from the fp32 eager reference against the precision's tolerance.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner.protocol.evidence import Quality
from runner.protocol.verdicts import QualityFinding, QualityVerdict


def judge(quality: Quality | None, tolerance: Mapping[str, float]) -> QualityFinding:
    """The verdict: ``ok``, one sentence that says what is wrong with the output, or ``unobserved`` without figures.

    Args:
        tolerance: figure -> limit; ``least_rel_l2`` is the gate's and not looked at here.
    """
    if quality is None:
        return QualityVerdict.UNOBSERVED
    if not quality.comparable:
        return (quality.why or "output that can't be compared")[:1000]
    if not quality.finite:
        return "output with nan or inf" + _place(quality, "finite")
    # (figure, its value, whether more of it is better, whether an output may have none)
    figures = (
        ("rel_l2", quality.rel_l2, False, False),
        ("cosine", quality.cosine, True, False),
        ("top1_match_pct", quality.top1_match_pct, True, True),
        ("max_abs_err", quality.max_abs_err, False, False),
    )
    for name, value, more_is_better, may_be_absent in figures:
        limit = tolerance.get(name)
        if limit is None or (value is None and may_be_absent):
            continue
        if value is None:
            return f"{name} is too large to be a number" + _place(quality, name)
        # Written so that nan, which compares false with everything, does not pass.
        if not (value >= limit if more_is_better else value <= limit):
            return f"{name} {value:.3g} is past the tolerance of {limit:g}" + _place(quality, name)
    return QualityVerdict.OK


def _place(quality: Quality, name: str) -> str:
    """The part of the sentence that says where in the outputs the figure is worst."""
    return f", of {quality.worst[name][:200]}" if name in quality.worst else ""
