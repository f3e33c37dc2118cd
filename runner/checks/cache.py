"""Whether the caches were as asked for before each timed iteration: cold ones overwritten as a whole, warm ones not at
all."""

from __future__ import annotations

from collections.abc import Iterator

from runner.checks.proof import Mismatch, Proof, shown
from runner.launch import PlacedCell


def check(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """The mismatches of the setting ``cache``."""
    window, wanted = proof.window, placed.cell.cache
    if window is None:
        return
    size, written = window.cache_bytes, window.overwritten_bytes
    is_cold = bool(size and written >= size)
    if is_cold != (wanted == "cold") or (written and not is_cold):
        actual = f"{written} bytes written before each iteration over caches of {shown(size)} bytes"
        yield Mismatch("cache", wanted, actual, "the worker is of another version")
