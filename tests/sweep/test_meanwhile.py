"""What a sweep does while a job begins: it records the one before, and composes the next."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from runner.machine import installation, stop_signals
from runner.sweep.loop import _Meanwhile
from runner.tracking.connection import UnavailableError
from runner.tracking.store import Store
from tests.tracking.test_recorder import recorder


class Loader:
    """Stands in for Hydra's, and counts."""

    def __init__(self) -> None:
        self.composed: list[list[str]] = []

    def load_sweep_config(self, config: str, overrides: list[str]) -> list[str]:
        """A configuration is its overrides; one of them can't be composed."""
        self.composed.append(overrides)
        if overrides == ["a=broken"]:
            raise ValueError("no a=broken")
        return [config, *overrides]


@pytest.fixture
def loader() -> Any:
    return Loader()


@pytest.fixture
def jobs(loader: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", [str(installation.PLUGINS), *sys.path])
    return importlib.import_module("hydra_plugins.runner_matrix")._ComposedAhead(loader)


def test_a_job_that_begins_is_shown_then_what_is_due_is_recorded_and_the_next_prepared() -> None:
    done: list[str] = []
    record = recorder()
    progress: Any = SimpleNamespace(phase=done.append, say=done.append)
    listener = _Meanwhile(progress, record, lambda: done.append("the next job"))
    record.later(lambda _: done.append("the job before"))
    for phase in ("import", "measure"):
        listener.phase(phase)
    listener.say("disturbed")
    assert done == ["import", "the job before", "the next job", "measure", "the next job", "disturbed"]


def test_a_stop_that_mlflow_made_an_error_of_stops_the_job_that_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(store: Store) -> None:
        monkeypatch.setattr(stop_signals, "is_asked", lambda: True)
        raise UnavailableError("mlruns=/x: MLflow can't be used (signal 2)")

    record = recorder()
    progress: Any = SimpleNamespace(phase=lambda name: None)
    record.later(interrupted)
    with pytest.raises(KeyboardInterrupt):
        _Meanwhile(progress, record, lambda: None).phase("import")


def test_a_job_that_was_composed_ahead_is_composed_once_and_given_once(loader: Any, jobs: Any) -> None:
    for _ in range(3):
        jobs.compose("config", ["a=1"])
    assert loader.composed == [["a=1"]]
    first, second = (jobs.load_sweep_config("config", ["a=1"]) for _ in range(2))
    assert first == second == ["config", "a=1"]
    assert first is not second
    assert loader.composed == [["a=1"], ["a=1"]]


def test_another_job_than_the_one_composed_ahead_is_composed_when_it_is_launched(jobs: Any) -> None:
    jobs.compose("config", ["a=1"])
    assert jobs.load_sweep_config("config", ["a=1", "reruns=0"]) == ["config", "a=1", "reruns=0"]
    assert jobs.load_sweep_config("config", ["a=1"]) == ["config", "a=1"]


def test_an_error_of_composing_ahead_is_that_of_the_job_and_not_of_the_one_that_runs(jobs: Any) -> None:
    jobs.compose("config", ["a=broken"])
    with pytest.raises(ValueError, match="no a=broken"):
        jobs.load_sweep_config("config", ["a=broken"])
