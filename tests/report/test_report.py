from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from runner.analysis import cause, expected
from runner.analysis.ranking import pick_baseline, rank, warning
from runner.matrix.cell import AXES
from runner.protocol.errors import RunnerError
from runner.protocol.resultfile import Surroundings, Window, WorkerResult
from runner.protocol.verdicts import EvidenceVerdict, Status
from runner.report import picture, terminal
from runner.results.metrics import INTERVALS, cell_metrics
from runner.results.outcome import CellRecord, Outcome


def axes(**change: str) -> dict[str, str]:
    base: dict[str, str] = dict.fromkeys(AXES, "x") | {
        "scenario": "inference",
        "load": "-",
        "model": "tiny",
        "allocator": "ptmalloc",
        "ipex": "off",
        "batch_size": "4",
        "instances": "1",
    }
    return base | change


def record(
    name: str, samples: list[float] | None, failure: str | None = None, runner_cpu_s: float = 0.0, quality: str = "ok"
) -> CellRecord:
    """A cell of one round; with samples its window has 10 faults an iteration."""
    outcome = Outcome(
        name,
        0,
        axes(allocator=name),
        Status.FAILED if failure else Status.FINISHED,
        failure,
        EvidenceVerdict.OK,
        quality=quality,
        isa="avx512",
        figures={"quality/rel_l2": 3e-7},
        cost_s={"job": 2.0},
    )
    results = {}
    if samples:
        n = len(samples)
        window = Window(sum(samples), 10 * n, 0, 2 * n, n, 1.0, 0.5, 5_000_000, runner_cpu_s, None)
        results[(0, 0)] = WorkerResult(name, 0, samples, window)
    return CellRecord(name, outcome.axes, [outcome], results)


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
    rows = rank([SLOW, FAST], "ptmalloc")
    assert [row.record.cell_id for row in rows] == ["tcmalloc", "ptmalloc"]
    assert rows[0].speedup == pytest.approx(21 / 11)
    assert rows[1].is_baseline
    assert rows[1].speedup == 1


def test_a_failed_cell_is_never_fast_however_short_its_samples() -> None:
    rows = rank([BROKEN, SLOW, FAST], "ptmalloc")
    assert rows[-1].record.cell_id == "jemalloc"
    assert rows[-1].p50_ms is None
    assert rows[-1].speedup is None


def test_without_a_measured_baseline_there_is_no_speedup() -> None:
    assert [row.speedup for row in rank([BROKEN, SLOW], "jemalloc")] == [None, None]


def test_the_baseline_is_the_first_cell_that_has_the_axes_asked_for() -> None:
    cells = [axes(allocator="a"), axes(allocator="b"), axes(allocator="b", ipex="on")]
    assert pick_baseline(cells, {}) == 0
    assert pick_baseline(cells, {"allocator": "b"}) == 1
    assert pick_baseline(cells, {"allocator": "b", "ipex": "on"}) == 2
    with pytest.raises(RunnerError, match="no cell of this matrix has it"):
        pick_baseline(cells, {"allocator": "c"})


def shown(rows: list[CellRecord]) -> str:
    console = Console(width=160, force_terminal=False)
    with console.capture() as capture:
        console.print(terminal.table(rank(rows, "ptmalloc"), ["allocator"], 1))
    return capture.get()


def test_the_table_has_every_cell_and_marks_the_baseline_and_the_failure() -> None:
    lines = [line.split()[:10] for line in shown([SLOW, FAST, BROKEN]).splitlines() if "malloc" in line]
    assert lines[0] == ["tcmalloc", "11", "9.1", "1.91x", "363.6", "10", "3.0e-07", "avx512", "ok", "ok"]
    assert lines[1][3:5] == ["1.00x", "(baseline)"]
    assert lines[2] == ["jemalloc", "-", "-", "-", "-", "-", "-", "-", "-", "FAILED"]


def rounds_of(name: str, *medians: float) -> CellRecord:
    """A cell with a round a median, five samples each."""
    one = record(name, [medians[0]])
    outcomes = [replace(one.outcomes[0], round=number) for number in range(len(medians))]
    results = {
        (number, 0): replace(one.results[0, 0], round=number, latencies_s=[m * f for f in (0.98, 0.99, 1, 1.01, 1.02)])
        for number, m in enumerate(medians)
    }
    return CellRecord(name, one.axes, outcomes, results)


STEADY = rounds_of("ptmalloc", 0.0200, 0.0201, 0.0199, 0.0202)
QUICK = rounds_of("tcmalloc", 0.0100, 0.0101, 0.0099, 0.0100)
ALIKE = rounds_of("jemalloc", 0.0200, 0.0198, 0.0202, 0.0201)


def test_with_rounds_every_speedup_has_an_interval_and_an_answer() -> None:
    rows = {row.record.cell_id: row for row in rank([STEADY, QUICK, ALIKE], "ptmalloc")}
    quick = rows["tcmalloc"].verdict
    assert quick is not None
    assert quick.interval is not None
    assert quick.interval.low < 2.0 < quick.interval.high
    assert rows["tcmalloc"].answer == "faster"
    assert rows["jemalloc"].answer.startswith("undecided (< ")
    assert rows["ptmalloc"].verdict is None
    assert rank([QUICK, STEADY], "tcmalloc")[1].answer == "slower"
    figures = cell_metrics(QUICK)
    assert figures["latency/ci95_low_ms"] < figures["latency/p50_ms"] < figures["latency/ci95_high_ms"]


@pytest.mark.parametrize("instances", [1, 2])
@pytest.mark.parametrize(("iterations", "known"), [(19, {"p50"}), (20, {"p50", "p90"}), (200, {"p50", "p90", "p99"})])
def test_every_figure_lies_in_its_interval_and_has_none_where_its_samples_are_too_few(
    iterations: int, known: set[str], instances: int
) -> None:
    made = rounds_of("tcmalloc", 0.010, 0.011, 0.0105)
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
    one = rounds_of("tcmalloc", 0.010, 0.010, 0.010)
    results = {(r, i): one.results[r, 0] for r in range(3) for i in range(2)}
    figures = cell_metrics(CellRecord("tcmalloc", axes(instances="2"), one.outcomes, results))
    ends = [figures[end] for end in INTERVALS["throughput/samples_per_s"]]
    assert ends == pytest.approx([2 * 4 / 0.010] * 2)


def test_a_p99_is_shown_or_what_it_needs_or_nothing() -> None:
    assert terminal.p99({"latency/p50_ms": 1.0, "latency/p99_ms": 12.3456}) == "12.35"
    assert terminal.p99({"latency/p50_ms": 1.0}) == "needs 200 samples"
    assert terminal.p99({"cost/job_s": 1.0}) == "-"


def test_with_one_round_nothing_is_decided_and_no_interval_is_made_up() -> None:
    rows = rank([SLOW, FAST], "ptmalloc")
    assert [row.answer for row in rows] == ["-", "-"]
    assert "latency/ci95_low_ms" not in cell_metrics(FAST)


def test_a_wrong_or_failed_cell_is_no_part_of_the_comparisons() -> None:
    wrong = rounds_of("tcmalloc", 0.01, 0.01, 0.01)
    wrong = replace(wrong, outcomes=[replace(outcome, quality="off by 3") for outcome in wrong.outcomes])
    rows = rank([STEADY, wrong, BROKEN], "ptmalloc")
    assert all(row.verdict is None for row in rows)


def test_the_table_of_several_rounds_shows_interval_and_answer() -> None:
    console = Console(width=250, force_terminal=False)
    with console.capture() as capture:
        console.print(terminal.table(rank([STEADY, QUICK, ALIKE], "ptmalloc"), ["allocator"], 4))
    assert "95 % interval" in capture.get()
    assert "faster" in capture.get()
    notes = terminal.notes(rank([STEADY, QUICK, ALIKE], "ptmalloc"), ["allocator"], 4)
    assert any(note.startswith("undecided: ") for note in notes)


def contaminated(cell: CellRecord, *rounds: int, attempts: int = 1) -> CellRecord:
    """The cell with those rounds contaminated."""
    why = ["other processes took 48 % of a core"]
    outcomes = [
        replace(outcome, contamination=why, attempts=attempts) if outcome.round in rounds else outcome
        for outcome in cell.outcomes
    ]
    return replace(cell, outcomes=outcomes)


def test_a_contaminated_cell_has_no_answer_and_the_others_keep_theirs() -> None:
    rows = {row.record.cell_id: row for row in rank([STEADY, contaminated(QUICK, 1), ALIKE], "ptmalloc")}
    assert rows["tcmalloc"].answer == "can't be trusted"
    assert rows["jemalloc"].answer.startswith("undecided")
    assert rows["ptmalloc"].answer == "-"


def test_a_contaminated_baseline_leaves_no_comparison_to_be_trusted() -> None:
    failed = record("tcmalloc_2", None, failure="it crashed")
    rows = rank([contaminated(STEADY, 0), QUICK, ALIKE, failed], "ptmalloc")
    assert [row.answer for row in rows] == ["can't be trusted"] * 3 + ["-"]


def test_contaminated_rounds_are_counted_and_the_reason_is_given() -> None:
    said = warning(rank([contaminated(STEADY, 0, 2), QUICK], "ptmalloc"))
    assert said == (
        "This comparison can't be trusted: 2 of 8 rounds were contaminated (other processes took 48 % of a core)."
    )
    assert warning(rank([STEADY, QUICK], "ptmalloc")) == ""


def test_one_contaminated_round_shows_in_the_table_and_the_notes() -> None:
    rows = rank([SLOW, contaminated(FAST, 0, attempts=3)], "ptmalloc")
    console = Console(width=250, force_terminal=False)
    with console.capture() as capture:
        console.print(terminal.table(rows, ["allocator"], 1))
    assert "can't be trusted" in capture.get()
    said = terminal.notes(rows, ["allocator"], 1)
    assert "contaminated allocator=tcmalloc, round 1: other processes took 48 % of a core" in said
    assert any("2 contaminated attempts run again" in note for note in said)
    assert cell_metrics(rows[0].record)["contamination/reruns"] == 2
    assert cell_metrics(rows[0].record)["contamination/rounds"] == 1


def test_the_line_of_a_job_says_that_it_was_contaminated() -> None:
    console = Console(width=250, force_terminal=False)
    progress = terminal.Progress(console, 1, ["allocator"], 60)
    [outcome] = contaminated(FAST, 0, attempts=3).outcomes
    with console.capture() as capture:
        progress.end(outcome, {})
    assert "contaminated (other processes took 48 % of a core), attempt 3" in capture.get()


def test_figures_of_others_are_those_of_the_worst_round() -> None:
    one = rounds_of("ptmalloc", 0.02, 0.02, 0.02)
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
    notes = terminal.notes(rank([record("ptmalloc", list(map(float, two)))], "ptmalloc"), ["allocator"], 1)
    assert any("allocator=ptmalloc, round 1: bimodal" in note for note in notes)


def test_a_median_that_is_known_less_well_than_asked_is_said_to_be_so() -> None:
    free = {"iterations": "null", "target_ci_pct": "1", "max_time_s": "10"}
    loose, sharp = record("ptmalloc", [0.01, 0.02] * 10), record("tcmalloc", [0.01] * 20)
    cells = [
        replace(cell, outcomes=[replace(o, settings={**o.settings, **free}) for o in cell.outcomes])
        for cell in (loose, sharp)
    ]
    said = " ".join(terminal.notes(rank(cells, "ptmalloc"), ["allocator"], 1))
    assert "1 cell reached max_time_s=10 before" in said
    assert "allocator=ptmalloc: to 67 %" in said
    assert "target_ci_pct" not in " ".join(terminal.notes(rank([loose, sharp], "ptmalloc"), ["allocator"], 1))


WRONG = record("tcmalloc", [0.001] * 3, quality="rel_l2 0.5 is past the tolerance of 0.0001")


def test_a_cell_with_a_wrong_output_is_shown_but_never_first() -> None:
    rows = rank([WRONG, SLOW], "ptmalloc")
    assert [row.record.cell_id for row in rows] == ["ptmalloc", "tcmalloc"]
    assert "WRONG" in shown([WRONG, SLOW])
    assert rows[1].speedup is None
    assert rank([WRONG, SLOW], "tcmalloc")[0].speedup is None
    assert "past the tolerance" in " ".join(terminal.notes(rows, ["allocator"], rounds=3))


def test_the_published_figure_stands_beside_ours_with_what_explains_it() -> None:
    fast = record("jemalloc", [0.010] * 3)
    fast.outcomes[0].figures["onednn/reorders_per_iteration"] = 0.0  # type: ignore[index]
    slow = record("ptmalloc", [0.020] * 3)
    slow.outcomes[0].figures["onednn/reorders_per_iteration"] = 158.0  # type: ignore[index]
    rows = rank([slow, fast], "ptmalloc")
    asked = expected.Expectation("tutorial", 1.16, {"allocator": ("ptmalloc",)}, {"allocator": ("jemalloc",)})
    assert expected.lines([asked], rows) == ["tutorial: 1.16x | here 2.00x - because reorders a step 158 -> 0"]
    disturbed = rank([slow, contaminated(fast, 0)], "ptmalloc")
    assert "here 2.00x (can't be trusted: contaminated) - because" in expected.lines([asked], disturbed)[0]
    best = expected.Expectation("tutorial", 7.71, {"allocator": ("ptmalloc",)}, {})
    assert "here 2.00x" in expected.lines([best], rows)[0]
    assert (
        "one of its two cells is missing, failed or has a wrong output"
        in expected.lines([asked], rank([slow], "ptmalloc"))[0]
    )


def test_a_wrong_output_is_never_the_fastest_cell_beside_a_published_figure() -> None:
    best = expected.Expectation("tutorial", 7.71, {"allocator": ("ptmalloc",)}, {})
    assert "here 1.00x" in expected.lines([best], rank([SLOW, WRONG], "ptmalloc"))[0]


def test_instances_of_a_round_add_up_in_throughput_and_stand_side_by_side_in_latency() -> None:
    one = record("ptmalloc", [0.020] * 4)
    two = CellRecord("ptmalloc", one.axes, one.outcomes, {(0, 0): one.results[(0, 0)], (0, 1): one.results[(0, 0)]})
    assert cell_metrics(two)["throughput/samples_per_s"] == pytest.approx(2 * 4 / 0.020)
    assert cell_metrics(two)["latency/p50_ms"] == pytest.approx(20)
    assert cell_metrics(two)["latency/processes"] == 2


def test_notes_name_failures_disturbance_and_what_one_round_can_not_tell() -> None:
    busy = record("tcmalloc", [0.01] * 4, runner_cpu_s=0.004)
    said = " ".join(terminal.notes(rank([SLOW, busy, BROKEN], "ptmalloc"), ["allocator"], rounds=1))
    assert "asked for jemalloc" in said
    assert "10.0 % of a core" in said
    assert "rounds=5" in said
    assert "rounds=5" not in " ".join(terminal.notes(rank([SLOW, FAST], "ptmalloc"), ["allocator"], rounds=3))


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (12, "12"), (999, "999"), (1340, "1.34 k"), (1_345_000, "1.34 M"), (0.5, "0.5")]
)
def test_counts_keep_three_digits(value: float, text: str) -> None:
    assert cause.count(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(45, "45 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")])
def test_durations_are_words(seconds: float, text: str) -> None:
    assert terminal.duration(seconds) == text


def test_the_picture_is_drawn_only_of_measured_cells(tmp_path: Path) -> None:
    picture.draw(rank([SLOW, FAST, BROKEN], "ptmalloc"), ["allocator"], tmp_path / "a.png", "t")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    picture.draw(rank([BROKEN], "ptmalloc"), ["allocator"], tmp_path / "b.png", "t")
    assert not (tmp_path / "b.png").exists()
