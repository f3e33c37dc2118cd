"""When MLflow is told: what is left for later is done while a job begins, in order, and before anything else."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from runner.machine import stop_signals
from runner.sweep.loop import _Recording
from runner.tracking.connection import UnavailableError
from runner.tracking.recorder import Recorder
from runner.tracking.store import Store


def recorder() -> Recorder:
    store: Any = SimpleNamespace(translated_errors=nullcontext)
    return Recorder(cast("Store", store), ())


def test_what_is_left_for_later_is_done_in_order_before_the_next_thing() -> None:
    done: list[str] = []
    record = recorder()
    record.later(lambda _: done.append("sweep"))
    record.later(lambda _: done.append("cell"))
    assert done == []
    record.attempt(lambda _: done.append("job"))
    record.settle()
    assert done == ["sweep", "cell", "job"]


def test_what_fails_later_leaves_mlflow_alone_as_what_fails_now_does(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(store: Store) -> None:
        raise UnavailableError("mlruns=/x: MLflow can't be used (locked)")

    done: list[str] = []
    record = recorder()
    record.later(fails)
    record.later(lambda _: done.append("during the break"))
    record.settle()
    assert done == []
    assert capsys.readouterr().out.count("the sweep goes on") == 1


def test_a_job_that_begins_is_shown_and_then_what_is_due_is_recorded() -> None:
    done: list[str] = []
    record = recorder()
    progress: Any = SimpleNamespace(phase=done.append, say=done.append)
    listener = _Recording(progress, record)
    record.later(lambda _: done.append("the job before"))
    for phase in ("import", "measure"):
        listener.phase(phase)
    listener.say("disturbed")
    assert done == ["import", "the job before", "measure", "disturbed"]


def test_a_stop_that_mlflow_made_an_error_of_stops_the_job_that_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(store: Store) -> None:
        monkeypatch.setattr(stop_signals, "is_asked", lambda: True)
        raise UnavailableError("mlruns=/x: MLflow can't be used (signal 2)")

    record = recorder()
    progress: Any = SimpleNamespace(phase=lambda name: None)
    record.later(interrupted)
    with pytest.raises(KeyboardInterrupt):
        _Recording(progress, record).phase("import")


def test_a_database_that_exists_is_looked_at_without_importing_mlflow(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from runner.tracking.store import Store; "
        f"Store(Path({str(tmp_path)!r})).prepare(); print('mlflow' in sys.modules)"
    )
    (tmp_path / "mlflow.db").touch()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
