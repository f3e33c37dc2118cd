"""--dry-run: the matrix, its time and one of its jobs are shown, and nothing is left behind."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runner.machine import host
from runner.machine.installation import WORKER
from runner.results.cells import Origin
from runner.results.costs import METRIC
from tests.builders import compared_cell, store_compared
from tests.conftest import CELL, Ran, ask

MATRIX = (
    "-m", "model=tiny", "launcher=none", "precision=int8", "memory_format=channels_last", "graph=eager,compile",
    "allocator=ptmalloc,ptmalloc_tuned", "rounds=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, Path]:
    folder = tmp_path_factory.mktemp("dry")
    return ask(*MATRIX, "--dry-run", cwd=folder), folder


def test_every_cell_is_listed_with_the_baseline_and_what_is_excluded_has_its_reason(shown: tuple[Ran, Path]) -> None:
    ran, _ = shown
    assert (ran.status, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0].startswith("2 cells x 3 rounds = 6 jobs, then captures on ")
    listed = [line.split() for line in lines if line.startswith(("   1", "   2"))]
    assert listed == [
        ["1", "allocator=ptmalloc", "graph=eager", "(baseline)"],
        ["2", "allocator=ptmalloc_tuned", "graph=eager"],
    ]
    (excluded,) = [line for line in lines if line.startswith("  excluded")]
    assert excluded.startswith("  excluded 2 cells: precision=int8 graph=compile: ")


def test_what_depends_on_a_model_that_nobody_has_tried_is_left_open(tmp_path: Path) -> None:
    """BERT has no images: a dry run before its first sweep can't know that its memory format means nothing."""
    words = ("-m", "model=bert_base_uncased", "graph=eager,compile", "--dry-run")
    ran = ask(*words, cwd=tmp_path, env={"XDG_CACHE_HOME": str(tmp_path)})
    assert ran.out.startswith("2 cells x ")
    assert "not tried on this host: bert_base_uncased; the sweep tries them, and may then leave cells out" in ran.out


def test_nothing_is_launched_or_written(shown: tuple[Ran, Path]) -> None:
    ran, folder = shown
    assert "nothing was launched or written" in ran.out
    assert list(folder.iterdir()) == []


def test_without_earlier_sweeps_the_time_is_said_to_be_unknown(shown: tuple[Ran, Path]) -> None:
    (line,) = [line for line in shown[0].out.splitlines() if line.startswith("time")]
    assert "not known: no sweep in this store" in line


def test_the_time_is_that_of_earlier_jobs_of_the_same_work_on_this_host(tmp_path: Path) -> None:
    here = Origin("", str(host.fingerprint()["host_id"]), {}, {})
    earlier = compared_cell(0, 0.1)
    measuring = {"iterations": "null", "min_time_s": "3", "max_time_s": "10", "target_ci_pct": "1"}
    axes, settings = (
        CELL.axes,
        {**CELL.settings, **measuring, "model.kwargs": "{}", "model._target_": "runner.worker.models.tiny"},
    )
    earlier = replace(earlier, axes=axes, settings=settings, metrics={**earlier.metrics, METRIC: 20.0})
    store_compared(tmp_path, "20260101-000000-aaaa", [earlier], here)
    ran = ask(*MATRIX, "dry_run=true", f"mlruns={tmp_path}")
    (line,) = [line for line in ran.out.splitlines() if line.startswith("time")]
    assert "about 2 min 00 s (2 cells judged by others of the same model and batch size)" in line


def test_the_job_of_a_cell_is_shown_with_its_command_and_its_environment(tmp_path: Path) -> None:
    ran = ask(*MATRIX, "--dry-run=2", env={"OMP_NUM_THREADS": "77"}, cwd=tmp_path)
    assert ran.status == 0, ran.err
    values: dict[str, list[str]] = {}
    for line in ran.out.splitlines()[1:]:
        values.setdefault(line[:12].strip(), []).append(line[14:])
    assert ran.out.startswith("cell 2: allocator=ptmalloc_tuned  graph=eager")
    (command,) = values["command"]
    assert f"{sys.executable} -u {WORKER} {tmp_path}/mlruns/sweeps/" in command
    assert command.endswith("/round-0/job.json")
    assert any(value.startswith("MALLOC_") for value in values["environment"])
    assert "OMP_NUM_THREADS=77" not in values["environment"]
    assert values["left out"] == ["OMP_NUM_THREADS of your environment, which would change the cell"]
    assert "dry_run" not in values["alone"][0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "why"),
    [("--dry-run=3", "dry_run=3: the matrix has 2 cells"), ("--dry-run=0", "dry_run=0: it must be at least 1")],
)
def test_a_cell_that_is_not_there_is_refused(word: str, why: str, tmp_path: Path) -> None:
    ran = ask(*MATRIX, word, cwd=tmp_path)
    assert ran.status == 2
    assert why in ran.err
