"""The words of a verdict, each written once: what became of a job, of its evidence and of its output.

Every member is a text as well: it equals, hashes as and is stored as its value.
"""

from __future__ import annotations

from enum import Enum

# The word for a result with which nothing is wrong.
OK = "ok"
# The word in place of a word or figure that could not be observed; it is never assumed.
UNOBSERVED = "unobserved"
# What the tag of a capture says, before the reason, where its iterations are not like those that were timed.
UNLIKE = "unlike the timed iterations"


class Word(str, Enum):
    """A word of a closed set, which prints as itself."""

    def __str__(self) -> str:
        return str(self.value)


class Status(Word):
    """What became of a job or of a whole sweep."""

    FINISHED = "FINISHED"
    FAILED = "FAILED"
    """The job did not do what was asked; its record has the reason in one sentence."""
    KILLED = "KILLED"
    """The user interrupted it, or the disk was full."""


class EvidenceVerdict(Word):
    """Whether what ran is what was asked, by the worker's evidence."""

    OK = OK
    MISMATCH = "mismatch"
    UNOBSERVED = UNOBSERVED
    """The worker left no evidence."""


class QualityVerdict(Word):
    """Whether the output is the model's, in the cases for which one word is enough."""

    OK = OK
    UNOBSERVED = UNOBSERVED
    """The output was not compared with the reference."""


# A word, or one sentence that says what is wrong with the output.
QualityFinding = QualityVerdict | str
