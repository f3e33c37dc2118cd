"""Planning says what it does while it takes long, and each combination is composed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.config.schema import Config
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


def test_a_cell_s_key_is_computed_once() -> None:
    cell = replace(CELL, seed=5)
    assert cell.key is cell.key
    assert replace(cell, seed=6).key != cell.key
    assert replace(cell, seed=5).key == cell.key
