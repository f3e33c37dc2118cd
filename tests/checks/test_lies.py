"""Models whose times are not what they seem, planted and caught through the command line and the real worker."""

from __future__ import annotations

import json
from statistics import median

import pytest

from runner.results.outcome import CellRecord
from tests.conftest import MODELS, TINY, Ran, Runner, records_of

pytestmark = pytest.mark.slow

# The function of tests/models/lying.py -> what its FAILED cell says
FAILURES = {
    "records_gradients": "work: asked for inference_mode, found gradients recorded",
    "is_nice": "work: asked for a process as it was started, found nice: as usual at first, now 5",
    "is_traced": "work: asked for a process as it was started, found sys.settrace: lying.is_traced",
    "lets_others_work": "work: asked for a process as it was started, found processes of its own: ",
    "computes_when_asked": "TypeError: forward() returned a function (output['scores'].compute): its work is not done",
}
# ... -> what a note on its cell says
NOTES = {
    "sets_what_holds_for_all": [
        "the model's code set variables that tune libraries: ONEDNN_MAX_CPU_ISA=AVX2",
        "the model's code flushes denormal numbers to zero, which are slow and part of float32",
        "the model's code turned oneDNN off (torch.backends.mkldnn)",
    ],
    "ignores_the_seed": ["all 2 input sets are the same: the model's callable makes no others with another seed"],
}
QUICK = (*TINY, "launcher=none", "capture=[]")
OTHERS = ("hides_its_numbers", "slows_the_clock")


@pytest.fixture(scope="module")
def lies(run_cli: Runner) -> Ran:
    """One cell per model, named by its twin."""
    twins = ",".join((*FAILURES, *NOTES, *OTHERS))
    return run_cli("-m", "model._target_=lying.${twin}", f"twin={twins}", *QUICK, env=MODELS)


def by_twin(lies: Ran) -> dict[str, CellRecord]:
    return {record.axes["twin"]: record for record in records_of(lies)}


def test_what_contradicts_the_cell_fails_by_name(lies: Ran) -> None:
    outcomes = by_twin(lies)
    assert {twin for twin, outcome in outcomes.items() if outcome.failure} == set(FAILURES)
    for twin, sentence in FAILURES.items():
        assert sentence in (outcomes[twin].failure or "")


def test_what_a_model_may_do_is_a_note_on_its_cell(lies: Ran) -> None:
    outcomes = by_twin(lies)
    assert {twin: list(outcome.notes) for twin, outcome in outcomes.items() if outcome.notes} == NOTES


def test_numbers_that_no_tensor_holds_are_compared(lies: Ran) -> None:
    assert "of output['scores'] in the last timed iteration" in by_twin(lies)["hides_its_numbers"].quality


def test_a_clock_that_the_model_replaces_times_nothing(lies: Ran) -> None:
    cell_id = by_twin(lies)["slows_the_clock"].cell_id
    result = json.loads((lies.sweep / f"cells/{cell_id}/round-0/result.json").read_text())
    # Replaced, it would tell a thousandth of the time that the window took.
    assert sum(result["latencies_s"]) > 0.1 * result["window"]["wall_s"]
    assert median(result["latencies_s"]) > 0


def test_sequences_of_another_length_than_asked_for_fail(run_cli: Runner) -> None:
    # A class method is as good a callable as a function.
    ran = run_cli("model._target_=lying.Words.ignoring_length", "model.sequence_length=16", *QUICK, env=MODELS)
    [record] = records_of(ran)
    assert "sequence_length: asked for 16, found inputs of 2x7" in (record.failure or "")


def test_an_allocator_that_the_model_tunes_while_it_runs_fails_by_the_name_of_the_setting(run_cli: Runner) -> None:
    words = ("model._target_=lying.tunes_the_allocator", "allocator=jemalloc", "capture=[]", *TINY)
    [record] = records_of(run_cli(*words, env=MODELS))
    assert "allocator: asked for arena.0.dirty_decay_ms = 10000, found -1" in (record.failure or "")
