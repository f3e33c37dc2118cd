"""One ranking: a sweep's end and `compare` show the same rows, and a process's median stands for its process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median

from hypothesis import given
from hypothesis import strategies as st

from runner import stats
from runner.analysis.comparison import FIGURES, compare
from runner.analysis.ranking import Ranking, rank
from runner.report import data, notes, sweep_end
from runner.results import cells
from tests.builders import cell, contaminated, noisy_record, ranked

BASE = noisy_record("ptmalloc", 20.0, 20.2, 19.9)
KEYS = ("allocator", "ipex")
RECORDS = [
    BASE,
    noisy_record("tcmalloc", 10.0, 10.1, 9.9),
    noisy_record("tcmalloc", 19.0, 21.0, 18.9, ipex="on"),
    contaminated(noisy_record("jemalloc", 15.0, 15.1, 14.9), 1, attempts=2),
    noisy_record("jemalloc", 1.0, 1.1, 0.9, ipex="on", quality="rel_l2 0.5 is past the tolerance"),
    noisy_record("mimalloc", failure="it crashed"),
]


def stored(ranking: Ranking, folder: Path) -> cells.Cells:
    """The cells as `compare` reads them after the sweep."""
    folder.mkdir()
    assert sweep_end.leave(ranking, folder, "a sweep") == []
    return cells.read([folder], FIGURES)


def test_the_end_of_a_sweep_and_compare_rank_its_cells_alike(tmp_path: Path) -> None:
    ranking = ranked(RECORDS, BASE.cell_id, KEYS)
    (group,) = compare(stored(ranking, tmp_path / "s"), {}).groups
    at_the_end = [data.cell(row, number) for number, row in enumerate(ranking.rows, 1)]
    compared = [data.cell(row, number) for number, row in enumerate(group.rows, 1)]
    assert compared == at_the_end
    assert [row["difference"] for row in compared] == [
        "faster",
        "can't be trusted",
        compared[2]["difference"],
        "-",
        "-",
        "-",
    ]
    assert compared[2]["difference"].startswith("undecided (< ")


def test_the_end_of_a_sweep_and_compare_say_the_same_below_their_tables(tmp_path: Path) -> None:
    ranking = ranked(RECORDS, BASE.cell_id, KEYS)
    comparison = compare(stored(ranking, tmp_path / "s"), {})
    at_the_end = notes.below(ranking.rows, KEYS, ranking.records)
    assert notes.of_group(comparison.groups[0], KEYS, None)[1:] == at_the_end
    for beginning in ("FAILED allocator=mimalloc", "WRONG output of allocator=jemalloc", "contaminated allocator=jem"):
        assert [note for note in at_the_end if note.startswith(beginning)]
    assert notes.UNDECIDED in at_the_end
    assert any(note.startswith("1 contaminated attempt run again") for note in at_the_end)


def test_cells_of_other_work_are_ranked_without_a_speed_up_and_are_not_on_the_front() -> None:
    base, other = cell(20.0), cell(1.0)
    other = replace(other, axes={**other.axes, "model": "large"})
    first, second = rank([base, other], base)
    assert (first.cell, first.speedup, first.on_front) == (other, None, False)
    assert (second.cell, second.speedup, second.on_front) == (base, 1.0, True)


latencies = st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=9)


@given(st.lists(latencies, min_size=2, max_size=5), st.lists(latencies, min_size=2, max_size=5))
def test_a_verdict_is_the_same_from_the_medians_of_processes_as_from_their_latencies(
    before: list[list[float]], after: list[list[float]]
) -> None:
    def medians(processes: list[list[float]]) -> list[list[float]]:
        return [[value] for value in map(median, processes)]

    assert stats.compare(medians(before), [medians(after)]) == stats.compare(before, [after])
    assert stats.ratio_interval(medians(before), medians(after)) == stats.ratio_interval(before, after)
