"""cells.parquet: what is written is read, by name or whole, and a sweep without one is read from its jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from runner.protocol.errors import RunnerError
from runner.protocol.stored import write_json
from runner.report import sweep_end
from runner.results import cells
from runner.results.outcome import OUTCOME_FILE, CellRecord, job_folder, read_cell
from runner.results.sweeps import CELLS_FILE
from tests.builders import NO_REORDERS, ONEDNN_FIGURES, ranked, record_of_medians, store_cell

HOST = {
    "host_id": "here",
    "governor": None,
    "transparent_hugepages": "always [madvise] never",
    "python": "3.11.7",
    "versions": {"torch": "2.8.0", "transformers": None},
}


def test_what_a_sweep_inherited_is_part_of_its_origin(tmp_path: Path) -> None:
    write_json(tmp_path / "host.json", {**HOST, "inherited": {"nice": "5"}})
    assert cells.origin(tmp_path).state["nice"] == "5"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """ptmalloc at 20 ms, tcmalloc at 12 ms, and jemalloc, which failed; files of the jobs only."""
    folder = tmp_path / "sweeps" / "20260101-000000-abcd"
    store_cell(folder, "ptmalloc", 20, ONEDNN_FIGURES)
    store_cell(
        folder,
        "tcmalloc",
        12,
        {**ONEDNN_FIGURES, **NO_REORDERS},
    )
    store_cell(folder, "jemalloc", 5, ONEDNN_FIGURES)
    file = job_folder(folder, "jemalloc", 0) / OUTCOME_FILE
    write_json(
        file, {**json.loads(file.read_text()), "status": "FAILED", "failure": "it crashed", "evidence": "mismatch"}
    )
    write_json(folder / "host.json", HOST)
    planned = [{"cell_id": name, "command": "run"} for name in ("ptmalloc", "jemalloc", "tcmalloc")]
    write_json(folder / "plan.json", {"cells": planned})
    return folder


def write(records: Sequence[CellRecord], sweep: Path) -> None:
    """cells.parquet as the end of the sweep leaves it."""
    rows = ranked(records, "ptmalloc").rows
    cells.write([row.cell for row in rows], {row.cell.cell_id: row.main_cause for row in rows}, sweep)


def test_what_is_written_is_read_and_equals_what_is_made_of_the_jobs(sweep: Path) -> None:
    made = cells.read([sweep])
    assert not (sweep / CELLS_FILE).exists()
    records = [record for name in ("ptmalloc", "jemalloc", "tcmalloc") if (record := read_cell(sweep, name))]
    write(records, sweep)
    assert cells.read([sweep]) == made
    fast, slow, failed = made.rows
    assert (fast.cell_id, fast.status, fast.failure, fast.evidence, fast.quality) == (
        "tcmalloc",
        "FINISHED",
        "",
        "ok",
        "ok",
    )
    causes = dict(
        zip(*pq.read_table(sweep / CELLS_FILE, columns=["cell_id", "main_cause"]).to_pydict().values(), strict=True)
    )
    assert causes["tcmalloc"] == "reorders per iteration 3 -> 0 (-8 of -8 ms)"
    assert fast.medians_s == (0.012,)
    assert fast.p50_ms == pytest.approx(12)
    assert (slow.is_baseline, fast.is_baseline) == (True, False)
    assert (failed.status, failed.failure, failed.p50_ms, failed.is_right) == ("FAILED", "it crashed", None, False)
    (known,) = made.origins
    assert (known.sweep, known.host_id) == (sweep.name, "here")
    assert known.versions == {"python": "3.11.7", "libc": "-", "torch": "2.8.0", "transformers": "-"}
    assert known.state["governor"] == "-"


def test_only_the_figures_that_are_asked_for_are_read(sweep: Path) -> None:
    record = read_cell(sweep, "ptmalloc")
    assert record is not None
    write([record], sweep)
    (row,) = cells.read([sweep], ["latency/p50_ms", "no/such"]).rows
    assert set(row.metrics) == {"latency/p50_ms"}
    (whole,) = cells.read([sweep]).rows
    assert whole.metrics["onednn/reorders_per_iteration"] == 3
    assert "cost/job_s" in whole.metrics


def test_a_figure_or_setting_that_a_cell_lacks_stays_absent(tmp_path: Path) -> None:
    base = cells.CellRow(
        "s", "a", "FINISHED", "", "ok", "ok", "avx2", True,
        {"model": "m"}, {"seed": "0"}, {"x": 1.0}, (0.1, 0.2),
    )  # fmt: skip
    other = replace(base, cell_id="b", is_baseline=False, settings={}, metrics={"y": 2.0}, medians_s=())
    other = replace(other, contamination="busy", contaminated=(1,), reruns=2, jobs=2, captures={"itt": "ok"})
    other = replace(other, notes=("a, b", "c"), torch="2.8.0+cu128", cpus=(0, 1))
    folder = tmp_path / "s"
    folder.mkdir()
    known = cells.Origin("s", "h", {"governor": "-"}, {"torch": "1"})
    cells.save([base, other], known, folder)
    assert cells.read([folder]) == cells.Cells([base, other], [known])


def test_a_file_from_before_a_column_is_read_without_it(sweep: Path) -> None:
    record = read_cell(sweep, "ptmalloc")
    assert record is not None
    write([record], sweep)
    table = pq.read_table(sweep / CELLS_FILE)
    later = ["contamination", "contaminated", "reruns", "jobs", "captures", "notes", "metric.contamination/rounds"]
    pq.write_table(table.drop_columns(later), sweep / CELLS_FILE)
    (row,) = cells.read([sweep]).rows
    assert (row.contamination, row.contaminated_rounds, row.contaminated, row.captures) == ("", 0, (), {})


def test_a_sweep_leaves_the_file_with_its_other_files(sweep: Path) -> None:
    record = read_cell(sweep, "ptmalloc")
    assert record is not None
    (sweep / "host.json").unlink()  # what it says is the report's matter
    sweep_end.leave(ranked([record], "ptmalloc"), sweep, "a sweep")
    assert (sweep / CELLS_FILE).exists()
    assert not list(sweep.glob(".*tmp"))


def test_a_sweep_of_which_no_cell_ended_leaves_none(tmp_path: Path) -> None:
    cells.write([], {}, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"not parquet at all"])
def test_a_torn_file_is_refused_with_the_next_step(sweep: Path, content: bytes) -> None:
    (sweep / CELLS_FILE).write_bytes(content)
    with pytest.raises(RunnerError, match="delete it, and it is made again from the jobs"):
        cells.read([sweep])


def test_a_file_of_another_version_is_refused(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = read_cell(sweep, "ptmalloc")
    assert record is not None
    monkeypatch.setattr(cells, "FORMAT", "999")
    write([record], sweep)
    monkeypatch.undo()
    with pytest.raises(RunnerError, match=f"has format 999; this version reads {cells.FORMAT}"):
        cells.read([sweep])


def test_jobs_of_another_version_are_refused(sweep: Path) -> None:
    file = job_folder(sweep, "ptmalloc", 0) / OUTCOME_FILE
    write_json(file, {**json.loads(file.read_text()), "format": 1})
    with pytest.raises(RunnerError, match="has format 1"):
        cells.read([sweep])


def test_importing_it_loads_no_pyarrow() -> None:
    code = "import sys, runner.results.cells; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("metrics", "quality", "right"),
    [
        ({"latency/p50_ms": 1.0}, "ok", True),
        ({"latency/p50_ms": 1.0}, "rel_l2 0.5 is past the tolerance of 0.01", False),
        ({"cost/launch_s": 1.0}, "ok", False),
        ({}, None, False),
    ],
)
def test_a_cell_can_win_when_it_was_measured_and_its_output_is_right(
    metrics: dict[str, float], quality: str | None, right: bool
) -> None:
    assert cells.is_right(metrics, quality) is right


@pytest.mark.parametrize(
    ("isa_of_rounds", "isa"),
    [
        (("avx512", "unobserved", "unobserved"), "unobserved"),
        (("avx512", "avx512", "unobserved"), "avx512"),
        (("avx512", "unobserved"), "avx512"),
        (("avx512", "avx2"), "avx2+avx512"),
    ],
)
def test_a_cell_s_instructions_are_those_of_most_of_its_rounds(isa_of_rounds: tuple[str, ...], isa: str) -> None:
    made = record_of_medians("a", *[0.01] * len(isa_of_rounds))
    outcomes = [replace(outcome, isa=seen) for outcome, seen in zip(made.outcomes, isa_of_rounds, strict=True)]
    assert replace(made, outcomes=outcomes).isa == isa
