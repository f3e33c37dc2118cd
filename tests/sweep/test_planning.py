"""Planning says what it does while it takes long, and each combination is composed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.config.schema import Config
from runner.protocol.cell import Precision
from runner.protocol.errors import RunnerError
from runner.protocol.trial import Trial
from runner.sweep import planning
from runner.sweep.planning import SweepRequest, expand_matrix
from tests.conftest import CELL
from tests.sweep.test_resume import config_of


def request_of(sizes: int) -> SweepRequest:
    choices = {"launcher": ["none"], "batch_size": [str(size + 1) for size in range(sizes)]}
    return SweepRequest(choices, (), (), Path("x"), "x", "adhoc", "")


def composed(overrides: Sequence[str]) -> Config:
    size = int(overrides[1].removeprefix("batch_size="))
    glibc = replace(CELL.allocator, library="glibc")
    return config_of(replace(CELL, allocator=glibc, launcher=replace(CELL.launcher, name="none"), batch_size=size))


@pytest.fixture(autouse=True)
def same_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.sweep.identity.cell_identity", lambda placed: {})


def test_a_few_cells_are_planned_in_silence() -> None:
    said: list[str] = []
    assert len(expand_matrix(request_of(3), composed, said.append).runnable) == 3
    assert said == []


def test_many_are_announced_before_the_first_is_composed() -> None:
    said: list[str] = []

    def first(overrides: Sequence[str]) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        expand_matrix(request_of(200), first, said.append)
    assert said == ["planning 200 combinations: composing each, and seeing what this machine can run"]


def test_what_takes_long_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(planning, "_SILENCE_S", -1.0)  # every step comes too late
    expand_matrix(request_of(3), composed, said.append)
    assert said == [f"planned {done} of 3 combinations" for done in range(3)]


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_the_parts_of_a_matrix_are_all_of_it_and_each_has_the_baseline(parts: int) -> None:
    measured = [
        [
            planned.cell.batch_size
            for planned in expand_matrix(replace(request_of(11), shard=(part, parts)), composed).runnable
        ]
        for part in range(1, parts + 1)
    ]
    assert all(sizes[0] == 1 for sizes in measured)
    others = [size for sizes in measured for size in sizes[1:]]
    assert sorted(others) == list(range(2, 12))
    assert max(map(len, measured)) - min(map(len, measured)) <= 1


def test_the_baseline_of_a_part_is_the_one_that_was_asked_for_and_the_rest_is_not_composed() -> None:
    seen: list[int] = []

    def with_baseline(overrides: Sequence[str]) -> Config:
        config = replace(composed(overrides), baseline={"batch_size": 3})
        seen.append(config.cell.batch_size)
        return config

    matrix = expand_matrix(replace(request_of(1000), shard=(2, 250)), with_baseline)
    assert [planned.cell.batch_size for planned in matrix.runnable] == [3, 2, 253, 503, 753]
    assert len(seen) < 20


def test_a_cell_s_key_is_computed_once() -> None:
    cell = replace(CELL, seed=5)
    assert cell.key is cell.key
    assert replace(cell, seed=6).key != cell.key
    assert replace(cell, seed=5).key == cell.key


def with_trial(matrix_cells: int, **change: Any) -> planning.SweepPlan:
    """A plan of cells whose models have all had the same trial."""
    trial = Trial(**change)
    return planning.plan_sweep(
        request_of(matrix_cells), composed, try_models=lambda cells: {cell.candidate.key: trial for cell in cells}
    )


def test_the_default_length_of_sequences_is_as_if_it_had_been_asked_for() -> None:
    [planned] = with_trial(1, sequence_length=128).matrix.runnable
    assert planned.cell.sequence_length == 128
    assert planned.overrides[-1] == "sequence_length=128"


def test_what_a_trial_has_to_say_is_a_note_of_the_sweep() -> None:
    assert with_trial(2, notes=["random weights"]).matrix.notes == ["random weights"]


def test_a_sweep_of_models_that_can_not_be_measured_is_refused() -> None:
    with pytest.raises(RunnerError, match="model=tiny: it can't be built"):
        with_trial(1, problem="it can't be built")


def test_one_model_that_can_not_be_measured_fails_without_a_launch_beside_others() -> None:
    def try_models(cells: Sequence[planning.PlannedCell]) -> dict[str, Trial]:
        return {cells[0].candidate.key: Trial("it is random")}

    plan = planning.plan_sweep(request_of(2), composed, try_models=try_models)
    assert [(planned.cell.batch_size, why) for planned, why in plan.matrix.refused] == [(1, "model=tiny: it is random")]
    assert [planned.cell.batch_size for planned in plan.matrix.runnable] == [2]


def test_a_recipe_for_linears_is_left_out_for_a_model_without_any() -> None:
    def dynamic(overrides: Sequence[str]) -> Config:
        config = composed(overrides)
        return replace(config, cell=replace(config.cell, precision=Precision("int8_dynamic")))

    request = request_of(1)
    assert len(planning.plan_sweep(request, dynamic).matrix.runnable) == 1
    with pytest.raises(RunnerError, match="precision=int8_dynamic: model=tiny has no linear layer"):
        planning.plan_sweep(
            request, dynamic, try_models=lambda cells: {cells[0].candidate.key: Trial(linear_inputs=[])}
        )


def test_a_memory_format_is_left_out_for_a_model_without_images() -> None:
    def last(overrides: Sequence[str]) -> Config:
        config = composed(overrides)
        return replace(config, cell=replace(config.cell, memory_format="channels_last"))

    request = request_of(1)
    assert len(planning.plan_sweep(request, last).matrix.runnable) == 1
    with pytest.raises(RunnerError, match="works on no images"):
        planning.plan_sweep(request, last, try_models=lambda cells: {cells[0].candidate.key: Trial(has_images=False)})
