"""What the gate judges, and what it says: the proof of one worker, and a thing in it that is not as asked."""

from __future__ import annotations

from dataclasses import dataclass

from runner.capture.kernels import Summary
from runner.protocol.evidence import Evidence, Quality
from runner.protocol.resultfile import Window
from runner.protocol.verdicts import UNOBSERVED


@dataclass(frozen=True)
class Proof:
    """Everything that shows what one worker ran."""

    evidence: Evidence
    """What the worker read back about itself."""
    kernels: Summary
    """The summary of oneDNN's log of a few iterations."""
    quality: Quality | None
    """How far its output is from fp32's; None if the worker did not compare them."""
    window: Window | None = None
    """What the operating system counted while it was timed; None if that is not known."""
    round: int = 0
    """The number of the round in which it ran."""


@dataclass(frozen=True)
class Mismatch:
    """One thing that did not run as asked."""

    axis: str
    """The axis or setting that was asked for."""
    asked: str
    """What was asked for."""
    actual: str
    """What ran instead, or ``unobserved``."""
    cure: str
    """What to do next, or what may have caused it."""

    def __str__(self) -> str:
        return f"{self.axis}: asked for {self.asked}, found {self.actual}; {self.cure}"


def shown(value: object) -> str:
    """A value as a part of a mismatch: what is None could not be observed."""
    return UNOBSERVED if value is None else str(value)
