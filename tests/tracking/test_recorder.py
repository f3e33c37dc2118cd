"""When MLflow is told: what is left for later is done in order, and before anything else."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

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


def test_a_database_that_exists_is_looked_at_without_importing_mlflow(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from runner.tracking.store import Store; "
        f"Store(Path({str(tmp_path)!r})).prepare(); print('mlflow' in sys.modules)"
    )
    (tmp_path / "mlflow.db").touch()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
