"""When so few rounds were run that a figure would only mislead. Pure."""

from __future__ import annotations

# Ends that are further apart than this say that nothing is known.
_TOO_WIDE = 10.0
# A relative difference as large as this need not be looked for.
_TOO_LARGE = 1.0


def is_too_wide(low: float, high: float) -> bool:
    """Whether an interval of a positive figure says no more than that there are too few rounds."""
    return high > _TOO_WIDE * low


def is_too_few(detectable: float) -> bool:
    """Whether only a relative difference beyond this one would have shown, which is more than twice."""
    return detectable >= _TOO_LARGE
