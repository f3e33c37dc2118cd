"""Deleting a sweep: its runs are gone from MLflow with their artifacts, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.commands import delete
from runner.protocol.verdicts import Status
from runner.results import ledger
from runner.tracking.deletion import delete_runs
from runner.tracking.store import Store
from tests.builders import ONEDNN_FIGURES, store_cell
from tests.commands.test_stored_sweeps import entry

NAMES = "20260101-120000-aaaa", "20260102-120000-bbbb"


def stored_sweep(store: Store, name: str) -> Path:
    """A sweep of one cell on the disk and in MLflow."""
    sweep = store.root / "sweeps" / name
    store_cell(sweep, "ptmalloc", 20, ONEDNN_FIGURES)
    (sweep / "plan.json").write_text("{}")
    ledger.begin(sweep, entry(name))
    ledger.add_cells(sweep, [ledger.CellEntry("ptmalloc", "key", {"allocator": "ptmalloc"}, {}, "a line", {})])
    store.open_sweep(sweep)
    store.start_cell(sweep, "ptmalloc")
    ledger.end(sweep, ledger.End(Status.FINISHED))
    return sweep


@pytest.mark.slow
def test_the_runs_of_one_sweep_are_deleted_with_their_artifacts_and_those_of_another_are_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path)
    store.prepare()
    first, second = (stored_sweep(store, name) for name in NAMES)
    folders = [path for path in (tmp_path / "artifacts/adhoc").iterdir() if any(path.rglob("*"))]
    assert len(folders) == 2  # what each sweep uploaded of itself
    assert delete.main([NAMES[0], "--yes", "--mlruns", str(tmp_path)]) == 0
    assert f"{NAMES[0]} is deleted, with 2 runs in MLflow" in capsys.readouterr().out
    assert not first.exists()
    assert second.is_dir()
    assert len([path for path in (tmp_path / "artifacts/adhoc").iterdir() if any(path.rglob("*"))]) == 1
    assert delete_runs(entry(NAMES[0]), tmp_path) == 0
    assert delete_runs(entry(NAMES[1]), tmp_path) == 2
