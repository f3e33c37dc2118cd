"""A worker's result file while the worker goes on: what has been measured stays, whatever fails after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner.protocol.resultfile import ResultFile, WorkerResult, read_result
from tests.builders import window
from tests.checks.recorded import data_of, proof_of
from tests.protocol.test_job import SPEC

MEASURED = WorkerResult("c", 0, latencies_s=[0.01] * 5, window=window([0.01] * 5))
PROVED = replace(MEASURED, evidence=proof_of(data_of("ptmalloc_off")).evidence)


@pytest.fixture
def file(tmp_path: Path) -> ResultFile:
    return ResultFile(tmp_path / "result.json", SPEC, 1.0)


def test_a_worker_that_measured_nothing_leaves_its_error(file: ResultFile) -> None:
    file.fail(ValueError("no model"))
    result = read_result(file.path)
    assert (result.error, result.latencies_s, result.started_at_s) == ("ValueError: no model", [], 1.0)


def test_a_proof_that_fails_leaves_what_was_measured_and_the_first_error(file: ResultFile) -> None:
    file.keep(MEASURED)
    file.fail(ValueError("no proof"))
    file.fail(ValueError("something else"))
    result = read_result(file.path)
    assert result == replace(MEASURED, error="it measured, and could not prove what ran: ValueError: no proof")
    assert not file.is_complete


def test_a_capture_that_fails_takes_nothing_from_a_result_that_is_proved(file: ResultFile) -> None:
    file.keep(MEASURED)
    file.keep(PROVED)
    file.fail(ValueError("no capture"))
    assert file.is_complete
    assert read_result(file.path) == PROVED


def test_a_pass_that_is_not_for_evidence_is_complete_when_it_is_measured(file: ResultFile) -> None:
    file.spec = replace(SPEC, marked=True)
    file.keep(MEASURED)
    file.fail(ValueError("later"))
    assert read_result(file.path) == MEASURED
