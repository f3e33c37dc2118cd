"""One ranking: a sweep's end and `compare` show the same rows, with what the rounds did taken out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner.analysis.comparison import FIGURES, compare
from runner.analysis.ranking import TOO_FEW, Ranking, Row, cell_name, rank
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
    for beginning in ("FAILED allocator=mimalloc", "WRONG output of allocator=jemalloc", "disturbed allocator=jem"):
        assert [note for note in at_the_end if note.startswith(beginning)]
    assert any("would most likely have shown" in note for note in at_the_end)
    assert any(note.startswith("1 disturbed measurement made again") for note in at_the_end)


def test_each_work_of_a_sweep_is_ranked_against_the_cell_that_is_like_the_baseline() -> None:
    large = [
        noisy_record("tcmalloc", 50.0, 50.5, 49.5, model="large"),
        noisy_record("ptmalloc", 100.0, 101.0, 99.0, model="large"),
        noisy_record("slowest", 200.0, 201.0, 199.0, model="large"),
    ]
    ranking = ranked([*large, *RECORDS], BASE.cell_id, ("model", *KEYS))
    assert [row.labels["model"] for row in ranking.rows] == ["tiny"] * len(RECORDS) + ["large"] * 3
    first, second, third = ranking.rows[-3:]
    assert [row.labels["allocator"] for row in (first, second, third)] == ["tcmalloc", "ptmalloc", "slowest"]
    assert (first.answer, second.is_baseline, third.answer) == ("faster", True, "slower")
    assert first.speedup == pytest.approx(2, rel=0.02)
    assert first.on_front
    assert ranking.baseline_of(first) is second
    assert ranking.baseline is ranking.baseline_of(ranking.rows[0]) is not second


def test_where_no_cell_of_a_work_is_like_the_baseline_its_slowest_right_one_is() -> None:
    failed = noisy_record("ptmalloc", failure="killed", model="large")
    wrong = noisy_record("jemalloc", 300.0, 301.0, 299.0, model="large", quality="rel_l2 0.5")
    others = [noisy_record(name, ms, 1.01 * ms, model="large") for name, ms in (("tcmalloc", 50.0), ("mimalloc", 90.0))]
    ranking = ranked([BASE, failed, wrong, *others], BASE.cell_id, ("model", *KEYS))
    [own] = [row for row in ranking.rows if row.is_baseline and row.labels["model"] == "large"]
    assert own.labels["allocator"] == "mimalloc"


def test_the_end_of_a_sweep_and_compare_rank_each_work_alike(tmp_path: Path) -> None:
    large = [
        noisy_record(name, ms, 1.02 * ms, 0.99 * ms, model="large") for name, ms in (("ptmalloc", 9.0), ("x", 5.0))
    ]
    ranking = ranked([*RECORDS, *large], BASE.cell_id, ("model", *KEYS))
    groups = compare(stored(ranking, tmp_path / "s"), {}).groups
    compared = [(row.cell.cell_id, row.speedup, row.answer) for group in groups for row in group.rows]
    assert compared == [(row.cell.cell_id, row.speedup, row.answer) for row in ranking.rows]


def test_cells_of_other_work_come_after_the_baselines_without_a_speed_up_and_are_not_on_the_front() -> None:
    base, other = cell(20.0), cell(1.0)
    other = replace(other, axes={**other.axes, "model": "large"})
    first, second = rank([base, other], base)
    assert (first.cell, first.speedup, first.on_front) == (base, 1.0, True)
    assert (second.cell, second.speedup, second.on_front) == (other, None, False)


def test_a_name_leaves_out_the_length_of_sequences_that_a_model_has_not() -> None:
    row = Row(cell(), {"model": "resnet50", "batch_size": "32", "sequence_length": "none"}, False)
    assert cell_name(row, ["model", "batch_size", "sequence_length"]) == "resnet50, batch_size=32"


def test_contaminated_rounds_are_left_out_of_the_noise_as_long_as_two_others_remain() -> None:
    row = replace(cell(), medians_s=(1.0, 2.0, 3.0), rounds=(0, 2, 5), contaminated=(2,))
    assert row.by_round == {("s", 0): 1.0, ("s", 5): 3.0}
    assert replace(row, contaminated=(0, 2)).by_round == {("s", 0): 1.0, ("s", 2): 2.0, ("s", 5): 3.0}
    assert replace(row, rounds=(), contaminated=()).by_round == {("s", 0): 1.0, ("s", 1): 2.0, ("s", 2): 3.0}


def test_what_a_round_did_to_all_cells_hides_no_difference_between_them() -> None:
    shift = [1.0, 1.3, 0.9, 1.1]
    records = [
        noisy_record(name, *(speed * by * (1 + 0.002 * (-1) ** (place + number)) for number, by in enumerate(shift)))
        for place, (name, speed) in enumerate({"ptmalloc": 20.0, "tcmalloc": 19.0, "jemalloc": 20.0}.items())
    ]
    answers = {row.cell.cell_id: row.answer for row in ranked(records, records[0].cell_id).rows}
    assert answers[records[1].cell_id] == "faster"
    assert answers[records[2].cell_id].startswith("undecided (< ")


def test_cells_of_other_sweeps_were_measured_in_other_rounds() -> None:
    base, same = noisy_record("ptmalloc", 20.0, 26.0, 18.0), noisy_record("tcmalloc", 19.0, 24.7, 17.1)
    together = ranked([base, same, noisy_record("jemalloc", 20.0, 26.1, 18.0)], base.cell_id)
    moved = [replace(row.cell, sweep=row.cell.cell_id) for row in together.rows]
    apart = rank(moved, next(row for row in moved if row.cell_id == base.cell_id))
    assert together.rows[0].answer == "faster"
    assert apart[0].answer == TOO_FEW
