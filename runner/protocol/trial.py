"""The trial of a model before a sweep: what a process of its own finds out by building it and calling it once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runner.protocol.stored import Count

# History: 1 = first version; 2 = the hash of the weights; 3 = the inputs of linear layers.
FORMAT = 3

# A job file and what is found out with it, by the number of the job in the folder of the trial.
JOB_FILE, TRIAL_FILE, REFERENCE_FILE = "job-{}.json", "trial-{}.json", "reference-{}.pt"


@dataclass(frozen=True)
class Trial:
    """What is known of a model after its trial."""

    problem: str | None = None
    """Why it can't be measured, in one sentence; None if it can."""
    has_images: bool = True
    """Whether an operator on images ran, or an input has four dimensions: without any, memory formats mean nothing."""
    linear_inputs: Sequence[Count] | None = None
    """The numbers of inputs that its linear layers have, each once, on which recipes that quantize them depend; None if
    nobody has looked."""
    sequence_length: Count | None = None
    """The tokens per sequence that it takes where the cell names none; None if the cell does, or it has none."""
    weights: str = ""
    """The hash of its weights, see runner.protocol.evidence.ModelEvidence; empty if it has not passed."""
    notes: Sequence[str] = field(default_factory=list)
    """What a reader of its results should know, one sentence each: random weights."""
    format: int = FORMAT
