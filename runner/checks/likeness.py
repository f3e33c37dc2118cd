"""Were a capture's iterations like the timed ones? Judged by their times, and by who else was at work. Pure.

What an unlike iteration shows is not what was timed: others disturbed it, or recording it took its time. It is kept,
and marked wherever it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from runner.capture.steps import UNLIKE_FACTOR
from runner.protocol import contamination
from runner.protocol.resultfile import Captured, WorkerResult
from runner.protocol.verdicts import UNLIKE

_NINE_IN_TEN = 0.9
# What a capture's tag begins with where there is nothing to mark.
_NOTHING = ("failed", "unavailable")


def is_unlike(seconds: float, latencies_s: Sequence[float]) -> bool:
    """Whether an iteration that took this long is unlike the timed ones: longer by far than nine in ten of them."""
    ordered = sorted(latencies_s)
    return bool(ordered) and seconds > UNLIKE_FACTOR * ordered[math.ceil(_NINE_IN_TEN * len(ordered)) - 1]


def why_unlike(captured: Captured, latencies_s: Sequence[float]) -> str:
    """Why a capture's iterations are unlike the timed ones; empty if they are like them."""
    reasons = list(contamination.judge(captured.window))
    if captured.step_s and is_unlike(median(captured.step_s), latencies_s):
        times = f"{1e3 * median(captured.step_s):.3g} ms, the timed ones {1e3 * median(latencies_s):.3g} ms (medians)"
        reasons.append(f"they took {times}")
    return "; ".join(reasons)


def marked(tags: Mapping[str, str], captured: Mapping[str, Captured], result: WorkerResult) -> dict[str, str]:
    """The tags of captures, with the reason at those whose iterations are unlike the timed ones.

    Args:
        tags: ``capture.<name>`` -> what became of it.
        captured: capture -> its iterations.
        result: the timing pass.
    """
    latencies_s = [] if result.is_served else result.latencies_s
    everything = {**captured, "onednn": Captured("onednn", result.logged_s)}
    marked_tags = dict(tags)
    for name, capture in everything.items():
        tag = tags.get(f"capture.{name}", _NOTHING[0])
        reason = "" if tag.startswith(_NOTHING) else why_unlike(capture, latencies_s)
        if reason:
            marked_tags[f"capture.{name}"] = f"{tag}; {UNLIKE}: {reason}"
    return marked_tags
