"""A cell's record as its files make it: rounds, a round that was interrupted, and captures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.protocol.stored import write_json
from runner.results.metrics import cell_metrics
from runner.results.outcome import (
    OUTCOME_FILE,
    CaptureOutcome,
    CellRecord,
    captures_folder,
    captures_job,
    job_folder,
    read_cell,
    read_job,
)
from tests.builders import store_cell

NAME = "ptmalloc"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """One cell of one round."""
    store_cell(tmp_path, NAME, 20, {})
    return tmp_path


def read(sweep: Path) -> CellRecord:
    record = read_cell(sweep, NAME)
    assert record is not None
    return record


def leave_captures(sweep: Path, **changes: object) -> None:
    captured = CaptureOutcome(NAME, {"itt/dropped": 1.0}, {"capture.itt": "ok"}, {"captures": 3.0})
    captures_job(sweep, NAME).mkdir()
    file = captures_job(sweep, NAME) / OUTCOME_FILE
    write_json(file, captured)
    write_json(file, {**json.loads(file.read_text()), **changes})


def test_an_interrupted_round_takes_no_time_from_a_cell_that_has_others(sweep: Path) -> None:
    first = json.loads((job_folder(sweep, NAME, 0) / OUTCOME_FILE).read_text())
    job_folder(sweep, NAME, 1).mkdir()
    killed = {**first, "round": 1, "status": "KILLED", "failure": "interrupted"}
    write_json(job_folder(sweep, NAME, 1) / OUTCOME_FILE, killed)
    record = read(sweep)
    assert record.failure is None
    assert cell_metrics(record)["latency/p50_ms"] == pytest.approx(20)
    job = read_job(sweep, NAME, 1)
    assert job is not None
    assert job.failure == "interrupted"  # so that it is run again
    write_json(job_folder(sweep, NAME, 0) / OUTCOME_FILE, {**killed, "round": 0})
    assert read(sweep).failure == "interrupted"


def test_captures_have_a_record_and_a_folder_of_their_own(sweep: Path) -> None:
    assert read(sweep).captured is None
    assert captures_folder(sweep, NAME) == job_folder(sweep, NAME, 0)  # as in older sweeps
    leave_captures(sweep)
    record = read(sweep)
    assert record.captures["capture.itt"] == "ok"
    assert {"itt/dropped": 1.0, "cost/captures_s": 3.0}.items() <= cell_metrics(record).items()
    assert captures_folder(sweep, NAME) == captures_job(sweep, NAME)


@pytest.mark.parametrize("change", [{"cell_id": "other"}, {"figures": 7}, {"format": 1}])
def test_captures_that_can_not_be_read_cost_the_captures_and_not_the_timing(
    sweep: Path, change: dict[str, object]
) -> None:
    leave_captures(sweep, **change)
    record = read(sweep)
    assert record.captures["captures"].startswith(f"failed: {captures_job(sweep, NAME) / OUTCOME_FILE} ")
    assert cell_metrics(record)["latency/p50_ms"] == pytest.approx(20)
