"""How a sweep gets on: lines for files and pipes, one screen that is drawn in place for terminals."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pytest
from rich.console import Console

from runner.analysis.ranking import Ranking
from runner.protocol.cell import AXES
from runner.report import look, screen
from runner.report.progress import Costs, Progress
from runner.results.outcome import CaptureOutcome
from tests.builders import contaminated, ranked, record, record_of_medians

SLOW = record_of_medians("ptmalloc", 0.0200, 0.0201, 0.0199)
FAST = record_of_medians("tcmalloc", 0.0100, 0.0101, 0.0099)
ALIKE = record_of_medians("tcmalloc", 0.0199, 0.0201, 0.0200)
LABELS = dict.fromkeys(AXES, "x") | {"allocator": "ptmalloc"}


def after(rounds: int, *records: object) -> Ranking:
    """The ranking of these cells after that many of their rounds."""
    cut = [
        record(name.cell_id, *name.rounds[:rounds])  # type: ignore[attr-defined]
        for name in records
    ]
    return ranked(cut, "ptmalloc")


class Screen:
    """A progress and all that it wrote."""

    def __init__(self, is_terminal: bool, rounds: int = 3, height: int = 40) -> None:
        self._file = io.StringIO()
        console = Console(file=self._file, force_terminal=is_terminal, width=80, height=height)
        console.soft_wrap = not is_terminal  # as runner.report.terminal.make_console() has it
        self.progress: Progress = screen.progress(console, rounds, ["allocator"], True, False)

    def written(self) -> str:
        """What was written since the last call, without colours."""
        text = self._file.getvalue()
        self._file.seek(0)
        self._file.truncate()
        return re.sub(r"\x1b\[[0-9;?]*[mhl]", "", text)


def test_a_pipe_gets_the_whole_ranking_once_and_then_only_what_changed() -> None:
    shown = Screen(is_terminal=False)
    shown.progress.look(after(1, SLOW, FAST), "First look, 1 of 3 rounds")
    text = shown.written()
    assert "First look, 1 of 3 rounds" in text
    assert len(re.findall(r"^(?:pt|tc)malloc ", text, re.M)) == 2
    shown.progress.look(after(2, SLOW, FAST), "2 of 3 rounds")
    text = shown.written()
    assert re.search(r"tcmalloc: \S.* -> faster, 2\.0\dx \(1\.\d\d-2\.\d\d\)", text)
    assert "ptmalloc" not in text
    shown.progress.look(after(3, SLOW, FAST), "3 of 3 rounds")
    assert shown.written() == ""
    assert "\x1b" not in text


def test_a_new_fastest_cell_is_named() -> None:
    lines = look.changes(after(1, SLOW, ALIKE).rows, after(1, SLOW, FAST).rows, ["allocator"])
    assert lines == []  # tcmalloc was first before
    lines = look.changes(
        after(1, SLOW, record_of_medians("tcmalloc", 0.03)).rows, after(1, SLOW, FAST).rows, ["allocator"]
    )
    assert lines == ["fastest now: tcmalloc, 10 ms"]


@pytest.mark.parametrize(
    ("rounds", "floor", "said"),
    [
        (1, None, "First look, 1 of 3 rounds: how much processes differ is not known yet"),
        (1, 0.083, "First look, 1 of 3 rounds: differences under 8.3 % can't be told yet"),
    ],
)
def test_a_first_look_says_what_it_can_not_tell(rounds: int, floor: float | None, said: str) -> None:
    assert look.heading(after(rounds, SLOW, FAST).rows, rounds, 3, floor).startswith(said)


def test_later_looks_say_which_difference_would_not_have_shown() -> None:
    assert re.fullmatch(
        r"3 of 3 rounds: differences under \d\.\d % can't be told yet", look.heading(after(3, SLOW, ALIKE).rows, 3, 3)
    )
    assert look.heading(after(3, SLOW, ALIKE).rows, 3, "auto").startswith("3 rounds: ")
    wild = record_of_medians("tcmalloc", 0.001, 0.1)
    assert (
        look.heading(after(2, SLOW, wild).rows, 2, 3)
        == "2 of 3 rounds: the rounds differ too much to tell anything yet"
    )


def test_a_terminal_draws_the_ranking_again_in_place_with_the_phase_of_the_job() -> None:
    shown = Screen(is_terminal=True)
    shown.progress.start()
    shown.progress.add([(0, "ptmalloc"), (0, "tcmalloc")])
    shown.progress.begin(0, "ptmalloc", LABELS, "3 to 10 s")
    shown.progress.phase("warmup")
    assert "[1/2] allocator=ptmalloc  round 1 of 3: warming up" in shown.written()
    shown.progress.phase("measure")
    assert "measuring, 3 to 10 s" in shown.written()
    shown.progress.phase("measure")
    assert shown.written() == ""  # nothing is drawn while it measures
    shown.progress.end(SLOW.outcomes[0], {"latency/p50_ms": 20.0})
    text = shown.written()
    assert "ok p50 20 ms" in text
    assert "1 of 2, about 0 s left, then captures" in text
    for rounds in (1, 2):
        shown.progress.look(after(rounds, SLOW, FAST), f"{rounds} of 3 rounds")
        text = shown.written()
        assert "\x1b[1A" in text or "\x1b[2K" in text  # the last screen is taken away
        assert len(re.findall(r"^(?:pt|tc)malloc ", text, re.M)) == 2
    shown.progress.stop()
    shown.progress.stop()
    assert "malloc" not in shown.written()


def test_a_low_terminal_shows_the_first_cells_and_says_how_many_more_there_are() -> None:
    shown = Screen(is_terminal=True, height=16)
    shown.progress.start()
    cells = [record(f"a{number}", [0.01 + 0.001 * number] * 5) for number in range(30)]
    shown.progress.look(ranked([*cells, record("ptmalloc", [0.005] * 5)], "ptmalloc"), "heading")
    text = shown.written()
    assert len(re.findall(r"^(?:a\d+|ptmalloc) ", text, re.M)) == 5
    assert "26 more cells" in text
    shown.progress.stop()


def test_the_line_of_a_job_says_that_it_was_contaminated() -> None:
    shown = Screen(is_terminal=False)
    [outcome] = contaminated(record("tcmalloc", [0.01] * 3), 0, attempts=3).outcomes
    shown.progress.end(outcome, {})
    assert "disturbed (other processes took 48 % of a core), attempt 3" in shown.written()


def test_the_line_of_captures_names_what_was_taken_and_what_failed() -> None:
    shown = Screen(is_terminal=False)
    shown.progress.add_captures(["tcmalloc"], 10)
    tags = {
        "capture.onednn": "ok",
        "capture.itt": "failed: it died",
        "tma": "unavailable: no PMU",
        "onednn.kernel": "x",
    }
    shown.progress.begin(0, "tcmalloc", LABELS, "2 iterations")
    shown.progress.end(CaptureOutcome("tcmalloc", captures=tags), {})
    text = shown.written()
    assert "timing is over: the captures of 1 cell follow" in text
    assert "[captures 1/1] allocator=ptmalloc" in text
    assert "onednn; failed: it died" in text


def test_costs_are_expected_by_the_last_job_of_each_cell_and_by_the_mean_of_the_others() -> None:
    costs = Costs()
    assert costs.expected_s(["a"]) is None
    costs.record("a", 10)
    costs.record("b", 20)
    costs.record("a", 30)

    def expected(*cells: str) -> float | None:
        return costs.expected_s(list[str](cells))

    assert expected("a", "b") == 50
    assert expected("a", "c") == 55


def lines(text: str) -> Sequence[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_lines_say_what_runs_and_how_long_the_rest_takes() -> None:
    shown = Screen(is_terminal=False)
    shown.progress.start()
    shown.progress.add([(0, "ptmalloc"), (0, "tcmalloc")])
    shown.progress.begin(0, "ptmalloc", LABELS, "3 s")
    shown.progress.phase("warmup")
    shown.progress.end(SLOW.outcomes[0], {"latency/p50_ms": 20.0, "faults/minor_per_iteration": 1000.0})
    first, second = lines(shown.written())
    assert re.fullmatch(r"\[1/2\] allocator=ptmalloc  round 1 of 3, since \d\d:\d\d:\d\d", first)
    assert re.fullmatch(r" +ok p50 20 ms, 1 k faults/iteration  0 s, about 0 s left, then captures", second)
