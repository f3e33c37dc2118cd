"""What samples cost on a machine with a price. Pure."""

from __future__ import annotations

_SAMPLES = 1_000_000


def usd_per_million(usd_per_hour: float | None, samples_per_s: float | None) -> float | None:
    """What a million samples cost in USD on a machine that does nothing else; None where price or rate is not known."""
    return usd_per_hour / 3600 / samples_per_s * _SAMPLES if usd_per_hour and samples_per_s else None
