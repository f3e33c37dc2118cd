from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from runner.analysis import cause, expected
from runner.analysis.ranking import Row, pick_baseline, rank, warning
from runner.protocol.errors import RunnerError
from runner.protocol.resultfile import Surroundings, Window
from runner.report import notes, picture, tables, terminal
from runner.report.columns import Place, p99
from runner.results.metrics import INTERVALS, cell_metrics
from runner.results.outcome import CellRecord
from tests.builders import axes, cell, contaminated, ranked, record, record_of_medians


def sweep_table(*records: CellRecord) -> str:
    """The table at the end of a sweep."""
    console = Console(width=250, force_terminal=False)
    with console.capture() as capture:
        console.print(tables.drawn(tables.ranking(ranked(records, "ptmalloc").rows, ["allocator"], Place.SWEEP)))
    return capture.get()


def notes_of(*records: CellRecord) -> list[str]:
    """The notes below that table."""
    ranking = ranked(records, "ptmalloc")
    return notes.below(ranking.rows, ["allocator"], ranking.records)


FAST, SLOW = record("tcmalloc", [0.010, 0.012, 0.011]), record("ptmalloc", [0.020, 0.022, 0.021])
BROKEN = record("jemalloc", [0.001], failure="allocator: asked for jemalloc")


def test_figures_are_shown_in_ms_and_mb_and_counted_per_iteration() -> None:
    figures = cell_metrics(SLOW)
    assert figures["latency/p50_ms"] == pytest.approx(21)
    assert figures["throughput/samples_per_s"] == pytest.approx(4 / 0.021)
    assert figures["faults/minor_per_iteration"] == 10
    assert figures["memory/rss_peak_mb"] == 5
    assert figures["cost/job_s"] == 2
    assert "latency/p99_ms" not in figures
    assert "selfaudit/launcher_cpu_pct" not in figures


def test_rows_are_ranked_fastest_first_against_the_baseline() -> None:
    rows = ranked([SLOW, FAST], "ptmalloc").rows
    assert [row.cell.cell_id for row in rows] == ["tcmalloc", "ptmalloc"]
    assert rows[0].speedup == pytest.approx(21 / 11)
    assert rows[1].is_baseline
    assert rows[1].speedup == 1


def test_a_failed_cell_is_never_fast_however_short_its_samples() -> None:
    rows = ranked([BROKEN, SLOW, FAST], "ptmalloc").rows
    assert rows[-1].cell.cell_id == "jemalloc"
    assert rows[-1].p50_ms is None
    assert rows[-1].speedup is None


def test_without_a_measured_baseline_there_is_no_speedup() -> None:
    assert [row.speedup for row in ranked([BROKEN, SLOW], "jemalloc").rows] == [None, None]


def test_the_baseline_is_the_first_cell_that_has_the_axes_asked_for() -> None:
    cells = [axes(allocator="a"), axes(allocator="b"), axes(allocator="b", ipex="on")]
    assert pick_baseline(cells, {}) == 0
    assert pick_baseline(cells, {"allocator": "b"}) == 1
    assert pick_baseline(cells, {"allocator": "b", "ipex": "on"}) == 2
    with pytest.raises(RunnerError, match="no cell of this matrix has it"):
        pick_baseline(cells, {"allocator": "c"})


def test_the_table_has_every_cell_and_marks_the_baseline_and_the_failure() -> None:
    lines = [line.split()[:10] for line in sweep_table(SLOW, FAST, BROKEN).splitlines() if "malloc" in line]
    assert lines[0] == ["tcmalloc", "11", "9.1", "1.91x", "363.6", "10", "3.0e-07", "avx512", "ok", "ok"]
    assert lines[1][3:5] == ["1.00x", "(baseline)"]
    assert lines[2] == ["jemalloc", "-", "-", "-", "-", "-", "-", "-", "-", "FAILED"]


STEADY = record_of_medians("ptmalloc", 0.0200, 0.0201, 0.0199, 0.0202)
QUICK = record_of_medians("tcmalloc", 0.0100, 0.0101, 0.0099, 0.0100)
ALIKE = record_of_medians("jemalloc", 0.0200, 0.0198, 0.0202, 0.0201)


def test_with_rounds_every_speedup_has_an_interval_and_an_answer() -> None:
    rows = {row.cell.cell_id: row for row in ranked([STEADY, QUICK, ALIKE], "ptmalloc").rows}
    quick = rows["tcmalloc"].verdict
    assert quick is not None
    assert quick.interval is not None
    assert quick.interval.low < 2.0 < quick.interval.high
    assert rows["tcmalloc"].answer == "faster"
    assert rows["jemalloc"].answer.startswith("undecided (< ")
    assert rows["ptmalloc"].verdict is None
    assert ranked([QUICK, STEADY], "tcmalloc").rows[1].answer == "slower"
    figures = cell_metrics(QUICK)
    assert figures["latency/ci95_low_ms"] < figures["latency/p50_ms"] < figures["latency/ci95_high_ms"]


@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.parametrize(("iterations", "known"), [(19, {"p50"}), (20, {"p50", "p90"}), (200, {"p50", "p90", "p99"})])
def test_every_figure_lies_in_its_interval_and_has_none_where_its_samples_are_too_few(
    iterations: int, known: set[str], instances: int
) -> None:
    made = record_of_medians("tcmalloc", 0.010, 0.011, 0.0105)
    noise = np.random.default_rng(0).lognormal(0, 0.1, (3, instances, iterations))
    results = {
        (r, i): replace(made.results[r, 0], latencies_s=(noise[r, i] * 0.01 * (1 + 0.2 * i)).tolist())
        for r in range(3)
        for i in range(instances)
    }
    figures = cell_metrics(CellRecord("tcmalloc", axes(instances=str(instances)), made.outcomes, results))
    for name, (low, high) in INTERVALS.items():
        if name.startswith("throughput/") or name.removeprefix("latency/").removesuffix("_ms") in known:
            assert figures[low] <= figures[name] <= figures[high]
        else:
            assert not {name, low, high} & set(figures)


def test_the_interval_of_the_throughput_is_in_samples_a_second_of_all_instances() -> None:
    one = record_of_medians("tcmalloc", 0.010, 0.010, 0.010)
    results = {(r, i): one.results[r, 0] for r in range(3) for i in range(2)}
    figures = cell_metrics(CellRecord("tcmalloc", axes(instances="2"), one.outcomes, results))
    ends = [figures[end] for end in INTERVALS["throughput/samples_per_s"]]
    assert ends == pytest.approx([2 * 4 / 0.010] * 2)


def test_a_p99_is_shown_or_what_it_needs_or_nothing() -> None:
    texts = [
        p99(Row(replace(cell(), metrics=metrics), {}))
        for metrics in (
            {"latency/p50_ms": 1.0, "latency/p99_ms": 12.3456},
            {"latency/p50_ms": 1.0},
            {"cost/job_s": 1.0},
        )
    ]
    assert texts == ["12.35", "needs 200 latencies", "-"]


def test_with_one_round_nothing_is_decided_and_no_interval_is_made_up() -> None:
    rows = ranked([SLOW, FAST], "ptmalloc").rows
    assert [row.answer for row in rows] == ["-", "-"]
    assert "latency/ci95_low_ms" not in cell_metrics(FAST)


def test_a_cell_that_hardly_uses_its_cores_gets_a_note() -> None:
    waiting = cell(1.0)
    busy = {"cpu/threads": 2.0, "latency/iterations": 1000.0, "latency/processes": 2.0}
    for cores, expected_note in ((0.1, True), (1.0, True), (1.9, False)):
        [row] = rank([replace(waiting, metrics={**waiting.metrics, **busy, "cpu/cores_busy": cores})], None)
        texts = [note for note in notes.below([row], ["allocator"]) if f"{cores} of 2 cores busy" in note]
        assert bool(texts) == expected_note
    idle = {**waiting.metrics, **busy, "cpu/cores_busy": 0.1}
    for change in ({"latency/iterations": 100.0}, {"contamination/foreign_cpu_pct": 150.0}):
        [row] = rank([replace(waiting, metrics={**idle, **change})], None)
        assert not [note for note in notes.below([row], ["allocator"]) if "cores busy" in note]


def test_what_a_worker_noted_is_below_the_table_by_the_name_of_its_cell() -> None:
    noted = replace(QUICK, outcomes=[replace(outcome, notes=["the trace may lie"]) for outcome in QUICK.outcomes])
    assert noted.notes == ("the trace may lie",)
    assert [note for note in notes_of(STEADY, noted) if note.endswith(": the trace may lie")]


def test_a_wrong_or_failed_cell_is_no_part_of_the_comparisons() -> None:
    wrong = record_of_medians("tcmalloc", 0.01, 0.01, 0.01)
    wrong = replace(wrong, outcomes=[replace(outcome, quality="off by 3") for outcome in wrong.outcomes])
    rows = ranked([STEADY, wrong, BROKEN], "ptmalloc").rows
    assert all(row.verdict is None for row in rows)


def test_two_rounds_that_tell_nothing_say_so_instead_of_figures() -> None:
    wild, other = record_of_medians("ptmalloc", 0.01, 0.02), record_of_medians("tcmalloc", 0.011, 0.04)
    text = sweep_table(wild, other)
    assert "too wide" in text
    assert "undecided (too few rounds)" in text
    assert any(
        note.startswith("undecided (too few rounds): only a difference of more") for note in notes_of(wild, other)
    )


def test_the_table_of_several_rounds_shows_interval_and_answer() -> None:
    text = sweep_table(STEADY, QUICK, ALIKE)
    assert "95 % interval" in text
    assert "faster" in text
    assert any("would most likely have shown" in note for note in notes_of(STEADY, QUICK, ALIKE))


def test_a_contaminated_cell_has_no_answer_and_the_others_keep_theirs() -> None:
    rows = {row.cell.cell_id: row for row in ranked([STEADY, contaminated(QUICK, 1), ALIKE], "ptmalloc").rows}
    assert rows["tcmalloc"].answer == "can't be trusted"
    assert rows["jemalloc"].answer.startswith("undecided")
    assert rows["ptmalloc"].answer == "-"


def test_a_contaminated_baseline_leaves_no_comparison_to_be_trusted() -> None:
    failed = record("tcmalloc_2", failure="it crashed")
    rows = ranked([contaminated(STEADY, 0), QUICK, ALIKE, failed], "ptmalloc").rows
    assert [row.answer for row in rows] == ["can't be trusted"] * 3 + ["-"]


def test_contaminated_rounds_are_counted_and_the_reason_is_given() -> None:
    said = warning(ranked([contaminated(STEADY, 0, 2), QUICK], "ptmalloc").rows)
    assert said == (
        "This comparison can't be trusted: 2 of 8 rounds were disturbed (other processes took 48 % of a core)."
    )
    assert warning(ranked([STEADY, QUICK], "ptmalloc").rows) == ""


def test_one_contaminated_round_shows_in_the_table_and_the_notes() -> None:
    records = SLOW, contaminated(FAST, 0, attempts=3)
    assert "can't be trusted" in sweep_table(*records)
    below = notes_of(*records)
    assert "disturbed allocator=tcmalloc, round 1: other processes took 48 % of a core" in below
    assert any("2 disturbed measurements made again" in note for note in below)
    assert cell_metrics(records[1])["contamination/reruns"] == 2
    assert cell_metrics(records[1])["contamination/rounds"] == 1


def test_figures_of_others_are_those_of_the_worst_round() -> None:
    one = record_of_medians("ptmalloc", 0.02, 0.02, 0.02)
    calm = Surroundings([0], 0.001, 1.5, 0.0, {"memory_some": 0.0}, None, None, None, None, 0, 0, 0)
    window = replace(one.results[0, 0].window or Window(1, 0, 0, 0, 0, 0, 0, None, None, None), wall_s=1.0)
    results = {
        (number, 0): replace(result, window=replace(window, surroundings=replace(calm, busy_s=1.5 + foreign_s)))
        for ((number, _), result), foreign_s in zip(one.results.items(), (0.0, 0.5, 0.01), strict=True)
    }
    figures = cell_metrics(replace(one, results=results))
    assert figures["contamination/foreign_cpu_pct"] == pytest.approx(50)
    assert "contamination/quota_pct" not in figures


def test_samples_of_two_speeds_are_said_to_be_so() -> None:
    rng = np.random.default_rng(0)
    two = np.concatenate([rng.normal(10e-3, 1e-4, 140), rng.normal(13e-3, 1e-4, 60)])
    rng.shuffle(two)
    below = notes_of(record("ptmalloc", two.tolist()))
    assert any("allocator=ptmalloc, round 1: bimodal" in note for note in below)


def test_a_median_that_is_known_less_well_than_asked_is_said_to_be_so() -> None:
    free = {"iterations": "null", "target_ci_pct": "1", "max_time_s": "10"}
    loose, sharp = [0.01, 0.02] * 10, [0.01] * 20
    below = " ".join(notes_of(record("ptmalloc", loose, settings=free), record("tcmalloc", sharp, settings=free)))
    assert "10 s per process did not reach the 1 % precision asked for in 1 cell (worst 67 %, allocator=" in below
    assert "precision asked for" not in " ".join(notes_of(record("ptmalloc", loose), record("tcmalloc", sharp)))


WRONG = record("tcmalloc", [0.001] * 3, quality="rel_l2 0.5 is past the tolerance of 0.0001")


def test_a_cell_with_a_wrong_output_is_shown_but_never_first() -> None:
    rows = ranked([WRONG, SLOW], "ptmalloc").rows
    assert [row.cell.cell_id for row in rows] == ["ptmalloc", "tcmalloc"]
    assert "WRONG" in sweep_table(WRONG, SLOW)
    assert rows[1].speedup is None
    assert ranked([WRONG, SLOW], "tcmalloc").rows[0].speedup is None
    assert "past the tolerance" in " ".join(notes_of(WRONG, SLOW))


def test_the_published_figure_stands_beside_ours_with_what_explains_it() -> None:
    fast = record("jemalloc", [0.010] * 3, figures={"onednn/reorders_per_iteration": 0.0})
    slow = record("ptmalloc", [0.020] * 3, figures={"onednn/reorders_per_iteration": 158.0})
    rows = ranked([slow, fast], "ptmalloc").rows
    asked = expected.Expectation("tutorial", 1.16, {"allocator": ("ptmalloc",)}, {"allocator": ("jemalloc",)})
    assert expected.lines([asked], rows) == ["tutorial: 1.16x | here 2.00x - because reorders per iteration 158 -> 0"]
    disturbed = ranked([slow, contaminated(fast, 0)], "ptmalloc").rows
    assert "here 2.00x (can't be trusted: disturbed) - because" in expected.lines([asked], disturbed)[0]
    best = expected.Expectation("tutorial", 7.71, {"allocator": ("ptmalloc",)}, {})
    assert "here 2.00x" in expected.lines([best], rows)[0]
    assert (
        "one of its two cells is missing, failed or has a wrong output"
        in expected.lines([asked], ranked([slow], "ptmalloc").rows)[0]
    )


def test_a_wrong_output_is_never_the_fastest_cell_beside_a_published_figure() -> None:
    best = expected.Expectation("tutorial", 7.71, {"allocator": ("ptmalloc",)}, {})
    assert "here 1.00x" in expected.lines([best], ranked([SLOW, WRONG], "ptmalloc").rows)[0]


def test_instances_of_a_round_add_up_in_throughput_and_stand_side_by_side_in_latency() -> None:
    one = record("ptmalloc", [0.020] * 4)
    two = CellRecord("ptmalloc", one.axes, one.outcomes, {(0, 0): one.results[(0, 0)], (0, 1): one.results[(0, 0)]})
    assert cell_metrics(two)["throughput/samples_per_s"] == pytest.approx(2 * 4 / 0.020)
    assert cell_metrics(two)["latency/p50_ms"] == pytest.approx(20)
    assert cell_metrics(two)["latency/processes"] == 2


def test_notes_name_failures_disturbance_and_what_one_round_can_not_tell() -> None:
    busy = record("tcmalloc", [0.01] * 4, runner_cpu_s=0.004)
    below = notes_of(SLOW, busy, BROKEN)
    assert "FAILED allocator=jemalloc: allocator: asked for jemalloc" in below
    assert any("10.0 % of a core" in note for note in below)
    assert notes.ONE_ROUND in below
    assert notes.ONE_ROUND not in notes_of(STEADY, QUICK)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12, "12"), (999, "999"), (1340, "1.34 k"), (1_345_000, "1.34 M"), (0.5, "0.5")]
)
def test_counts_keep_three_digits(value: float, text: str) -> None:
    assert cause.count(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations_are_words(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


def test_the_picture_is_drawn_only_of_measured_cells(tmp_path: Path) -> None:
    picture.draw(ranked([SLOW, FAST, BROKEN], "ptmalloc"), tmp_path / "a.png", "t")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    picture.draw(ranked([BROKEN], "ptmalloc"), tmp_path / "b.png", "t")
    assert not (tmp_path / "b.png").exists()
