"""Later rounds are held to what the first round of their cell saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner.job.first_look import FirstLook
from runner.protocol.evidence import Evidence
from runner.protocol.resultfile import WorkerResult
from runner.protocol.stored import write_json
from runner.protocol.verdicts import EvidenceVerdict, QualityVerdict, Status
from runner.results.outcome import OUTCOME_FILE, RESULT_FILE, Outcome, job_folder
from tests.builders import axes
from tests.checks.recorded import data_of, proof_of

EVIDENCE = proof_of(data_of("ptmalloc_off")).evidence
UNSEEN = replace(EVIDENCE, operators=None)
RIGHT = Outcome("c", 0, axes(), Status.FINISHED, evidence=EvidenceVerdict.OK, quality=QualityVerdict.OK)


def result(evidence: Evidence | None, round_: int = 0, seconds: float = 1.0) -> WorkerResult:
    return WorkerResult("c", round_, [seconds], evidence=evidence, onednn_step_s={"torch": [seconds]})


def leave(sweep: Path, outcome: Outcome, evidence: Evidence | None) -> FirstLook | None:
    folder = job_folder(sweep, "c", 0)
    folder.mkdir(parents=True)
    write_json(folder / OUTCOME_FILE, outcome)
    write_json(folder / RESULT_FILE, result(evidence))
    return FirstLook.of(sweep, "c", 1)


def test_a_later_round_gets_the_operators_and_the_logged_iterations_of_the_first(tmp_path: Path) -> None:
    look = leave(tmp_path, RIGHT, EVIDENCE)
    assert look is not None
    later = result(UNSEEN, 3, 2.0)
    assert look.unlike([later]) == []
    whole = look.completed(later, 0)
    assert whole.evidence == EVIDENCE
    assert (whole.onednn_step_s, whole.latencies_s, whole.round) == ({"torch": [1.0]}, [2.0], 3)


@pytest.mark.parametrize(
    ("outcome", "evidence"),
    [
        (replace(RIGHT, status=Status.FAILED), EVIDENCE),
        (replace(RIGHT, quality="rel_l2 0.5 is past the tolerance of 0.01"), EVIDENCE),
        (replace(RIGHT, evidence=EvidenceVerdict.UNOBSERVED), EVIDENCE),
        (RIGHT, UNSEEN),
        (RIGHT, None),
    ],
)
def test_a_first_round_that_proves_nothing_leaves_later_ones_to_look_for_themselves(
    tmp_path: Path, outcome: Outcome, evidence: Evidence | None
) -> None:
    assert leave(tmp_path, outcome, evidence) is None


def test_without_a_first_round_there_is_nothing_to_be_held_to(tmp_path: Path) -> None:
    assert FirstLook.of(tmp_path, "c", 1) is None


def test_a_process_that_differs_from_the_first_rounds_fails_by_what_differs(tmp_path: Path) -> None:
    look = leave(tmp_path, RIGHT, EVIDENCE)
    assert look is not None
    other = replace(UNSEEN, graph=replace(UNSEEN.graph, nodes={"aten::mm": 1}), float32_settings={"x": "bf16"})
    [mismatch] = look.unlike([result(other, 1)])
    assert str(mismatch).startswith(
        "round: asked for a process like the first round's, found another graph and another float32_settings"
    )


def test_what_each_process_has_of_its_own_makes_no_difference(tmp_path: Path) -> None:
    look = leave(tmp_path, RIGHT, EVIDENCE)
    assert look is not None
    graph = replace(EVIDENCE.graph, objects=["/tmp/x/model.so"], cached_files=3, cache_hits=1)
    assert look.unlike([result(replace(UNSEEN, graph=graph))]) == []


def test_each_process_that_chooses_its_kernels_by_their_time_looks_for_itself(tmp_path: Path) -> None:
    graph = replace(EVIDENCE.graph, autotuned={"cpp_CppMicroGemmFP32Vec": 1})
    assert leave(tmp_path, RIGHT, replace(EVIDENCE, graph=graph)) is None
