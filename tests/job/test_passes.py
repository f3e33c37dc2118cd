"""What a pass left is judged: a worker that ended between its measurement and its proof."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner.job import passes
from runner.job.run import _possible, misfit
from runner.machine.execute import Ended
from runner.protocol.resultfile import WorkerResult
from runner.protocol.verdicts import Status
from runner.results.outcome import Outcome

MEASURED = WorkerResult("c", 0, latencies_s=[0.01] * 5)
OUTCOME = Outcome(
    "c", 0, {"batch_size": "4", "instances": "1"}, Status.FINISHED, cost_s={"job": 2.0}, figures={"a": 1.0}
)


def test_a_worker_that_dies_after_its_measurement_fails_with_what_ended_it(tmp_path: Path) -> None:
    (tmp_path / "stderr.log").write_text("")
    result, failure = passes._proven(Ended(-11, False, 2.0, 0.0), tmp_path / "result.json", MEASURED, None)
    assert result is None
    assert failure is not None
    assert failure.startswith(
        "the worker measured (result.json has its latencies), and ended before it proved what ran"
    )
    assert "SIGSEGV" in failure
    timed_out = passes._proven(Ended(-15, True, 2.0, 0.0), tmp_path / "result.json", MEASURED, None)[1]
    assert str(timed_out).endswith("timeout_s passed")


@pytest.mark.parametrize("seconds", [-86391.7, float("nan"), float("inf")])
def test_a_duration_that_can_not_be_fails_the_pass_with_its_name(seconds: float) -> None:
    assert misfit(OUTCOME) is None
    unfinished = replace(OUTCOME, status=Status.FAILED, cost_s={}, figures={})
    failed = _possible(replace(OUTCOME, cost_s={"job": seconds}), unfinished)
    assert (failed.status, misfit(failed)) == (Status.FAILED, None)
    assert str(failed.failure).startswith(f"cost_s.job is {seconds}, which is out of range: a clock was set")


def test_a_figure_that_is_no_number_fails_the_pass_with_its_name() -> None:
    failed = _possible(replace(OUTCOME, figures={"onednn/coverage_pct": float("nan")}), OUTCOME)
    assert "coverage_pct" in str(failed.failure)
