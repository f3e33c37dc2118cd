"""When a sweep stops measuring again what others disturb."""

from __future__ import annotations

from runner.protocol.verdicts import Status
from runner.results.outcome import Outcome
from runner.sweep.patience import Patience


def job(repeats: int = 0, reruns_s: float = 0.0, contamination: tuple[str, ...] = ()) -> Outcome:
    costs = {"reruns": reruns_s}
    return Outcome("c", 0, {}, Status.FINISHED, cost_s=costs, contamination=contamination, repeats=repeats)


def test_a_job_that_was_disturbed_in_every_loop_ends_it_until_one_is_left_alone() -> None:
    patience = Patience(100)
    patience.record(job(1, 1.0), 20.0)  # here it helped
    assert patience.why_over() == ""
    patience.record(job(2, 1.0, ("others",)), 20.0)
    assert patience.why_over().startswith("others use this machine all the time")
    patience.record(job(0, 0.0, ("others",)), 20.0)
    assert patience.why_over().startswith("others use this machine all the time")
    patience.record(job(), 20.0)
    assert patience.why_over() == ""


def test_more_than_three_tenths_of_the_expected_time_end_it() -> None:
    patience = Patience(10)  # of 10 s each
    patience.record(job(2, 20.0), 30.0)
    assert patience.why_over() == ""
    patience.record(job(2, 11.0), 21.0)
    assert patience.why_over().startswith("measuring again what others disturbed has taken 31 s of a sweep of 100 s")


def test_disturbed_jobs_that_were_not_measured_again_say_nothing() -> None:
    patience = Patience(4)
    for _ in range(10):
        patience.record(job(contamination=("others",)), 10.0)
    assert patience.why_over() == ""
