"""How long a sweep goes on measuring again what others disturbed.

On a machine with a browser open somebody is always at work: repeating does not help there, and the intervals carry what
the disturbance does.
"""

from __future__ import annotations

from runner.protocol.verdicts import Status
from runner.results.outcome import Outcome

# The most that measuring again may take, of the time that all jobs are expected to take without it.
_SHARE = 0.3


class Patience:
    """Whether jobs still measure again what others disturbed.

    A job that was disturbed in every loop says that the disturbance lasts: the next jobs measure once, until one of
    them is left alone.

    Args:
        jobs: how many the sweep has at least.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._ended = 0
        self._is_in_vain = False
        self._repeated_s = self._useful_s = 0.0

    def record(self, outcome: Outcome, took_s: float) -> None:
        """Note how a job ended.

        Args:
            took_s: how long it took, with all that it measured again.
        """
        repeated_s = outcome.cost_s.get("reruns", 0.0)
        self._repeated_s += repeated_s
        self._useful_s += max(took_s - repeated_s, 0.0)
        self._ended += 1
        if outcome.status == Status.FINISHED:
            has_repeated = bool(outcome.repeats or outcome.attempts > 1)
            self._is_in_vain = bool(outcome.contamination) and (has_repeated or self._is_in_vain)

    def why_over(self) -> str:
        """Why nothing is measured again for now, in a sentence; empty while it is."""
        if self._is_in_vain:
            return (
                "others use this machine all the time: measuring a job again did not help. Until a job is undisturbed "
                "each is measured once; the intervals show what the disturbance does"
            )
        expected_s = self._useful_s / max(self._ended, 1) * max(self._jobs, self._ended)
        if self._repeated_s > _SHARE * expected_s:
            return (
                f"measuring again what others disturbed has taken {self._repeated_s:.0f} s of a sweep of "
                f"{expected_s:.0f} s. Nothing more is measured again; the intervals show what that does"
            )
        return ""
