from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.protocol.captures import Captures, CountersCapture, IttCapture, ProfilerCapture, Region, Steps
from runner.protocol.jobfile import FORMAT, JobSpec, read_spec
from runner.protocol.resultfile import Window, WorkerResult, read_result
from runner.protocol.stored import FormatError, write_json
from tests.checks.recorded import data_of, proof_of
from tests.conftest import CELL

SPEC = JobSpec("id", 1, CELL, 99, "/r.json", [[0], [1]])
PROOF = proof_of(data_of("jemalloc_on"))
WINDOW = Window(1.0, 2, 3, 4, 5, 6.0, 7.0, None, 0.1, None)


CAPTURES = Captures(
    clean=True,
    counters=CountersCapture(10, 2.0, ["perf", "stat"]),
    itt=IttCapture(5, 2.0, "/c.so"),
    profiler=ProfilerCapture(5, 2.0, 20.0),
)


@pytest.mark.parametrize(
    "spec", [SPEC, replace(SPEC, captures=CAPTURES, onednn=Steps(5, 3.0)), replace(SPEC, region=Region("/ctl", "/ack"))]
)
def test_a_job_file_reads_back_as_it_was_written(tmp_path: Path, spec: JobSpec) -> None:
    write_json(tmp_path / "job.json", spec)
    assert read_spec(tmp_path / "job.json") == spec


@given(samples=st.lists(st.floats(min_value=1e-9, max_value=1e4)), error=st.none() | st.text())
def test_a_result_reads_back_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, samples: list[float], error: str | None
) -> None:
    file = tmp_path_factory.mktemp("r") / "result.json"
    result = WorkerResult("id", 0, samples, WINDOW, {"import": 1.0}, PROOF.evidence, error, quality=PROOF.quality)
    write_json(file, result)
    assert read_result(file) == result


def test_a_torn_result_is_refused(tmp_path: Path) -> None:
    whole = json.dumps(asdict(WorkerResult("id", 0)))
    for end in range(len(whole)):
        (tmp_path / "result.json").write_text(whole[:end])
        with pytest.raises(FormatError):
            read_result(tmp_path / "result.json")


@pytest.mark.parametrize("change", [{"format": FORMAT + 1}, {"unknown": 1}, {"window": {"wall_s": 1}}])
def test_a_result_of_another_shape_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / "result.json").write_text(json.dumps({**asdict(WorkerResult("id", 0)), **change}))
    with pytest.raises(FormatError):
        read_result(tmp_path / "result.json")


def test_writing_leaves_the_old_file_when_the_value_can_not_be_written(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(file, {"a": float("nan")})
    assert json.loads(file.read_text()) == {"a": 1}
