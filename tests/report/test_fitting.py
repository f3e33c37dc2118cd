"""The ranking in the terminal: it fits, whatever the matrix, and says the answer first."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from runner.analysis.ranking import Ranking
from runner.report import fitting, sweep_end, terminal
from runner.report.columns import Place
from tests.builders import SPREAD, axes, ranked, record

TWO = {"allocator": ["ptmalloc", "jemalloc"], "ipex": ["off", "on"]}
FIVE = {
    "allocator": ["ptmalloc", "jemalloc_benchmark"],
    "ipex": ["off", "on"],
    "memory_format": ["channels_first", "channels_last"],
    "precision": ["fp32", "bf16"],
    "graph": ["eager", "torchscript"],
}
CAUSE = "page faults per iteration 973 k -> 1.19 M (+228 of +264 ms)"


def matrix(of: Mapping[str, Sequence[str]], cause: str = CAUSE) -> Ranking:
    """The ranking of all combinations, each a little faster than the one before; the first one is the baseline."""
    records = []
    for number, values in enumerate(itertools.product(*of.values())):
        medians = (0.02 / (1 + 0.2 * number) * factor for factor in (0.999, 1, 1.001))
        rounds = [[median * factor for factor in SPREAD] for median in medians]
        made = record(f"c{number}", *rounds)
        records.append(replace(made, axes=axes(**dict(zip(of, values, strict=True)))))
    ranking = ranked(records, "c0", list(of))
    rows = [row if row.is_baseline else replace(row, main_cause=cause) for row in ranking.rows]
    return replace(ranking, rows=rows)


def printed(ranking: Ranking, width: int, is_wide: bool = False) -> list[str]:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        sweep_end.show(console, ranking, [], Path("mlruns/sweeps/s"), Path("mlruns").resolve(), {}, is_wide)
    return capture.get().splitlines()


@pytest.mark.parametrize("of", [TWO, FIVE], ids=["two axes", "five axes"])
@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_closing_table_fits_and_has_every_cell_with_what_decides(
    of: Mapping[str, Sequence[str]], width: int
) -> None:
    ranking = matrix(of)
    lines = printed(ranking, width)
    assert max(map(len, lines)) <= width
    table = [line for line in lines if re.search(r" \d+\.\d\dx  ", line)]
    assert len(table) == len(ranking.rows)
    for row, line in zip(ranking.rows, table, strict=True):
        assert f"{row.speedup:.2f}x" in line
        assert f"{row.p50_ms:.4g}" in line
        assert ("baseline" if row.is_baseline else "faster") in line


def test_the_baseline_and_the_causes_are_in_the_table_where_there_is_room_for_them() -> None:
    assert sum("page faults 973k→1.19M" in line for line in printed(matrix(TWO), 80)) == 3
    assert any(CAUSE in line for line in printed(matrix(TWO), 200))
    assert any("why they differ: report.html" in line for line in printed(matrix(FIVE), 80))


def test_a_wide_table_has_every_column_whatever_the_terminal() -> None:
    lines = printed(matrix(FIVE), 80, is_wide=True)
    [heading] = [line for line in lines if "faults/iteration" in line]
    assert "samples/s" in heading
    assert sum(CAUSE in line for line in lines) == 31


def test_of_very_many_cells_the_first_ones_and_the_baseline_are_shown() -> None:
    ranking = matrix({"allocator": [f"a{number}" for number in range(60)]}, "-")
    section = fitting.fitted(ranking.rows, ["allocator"], Place.SWEEP, 80)
    assert len(section.rows) == fitting.MOST_ROWS + 1
    assert "baseline" in [value.text for value in section.rows[-1]]
    assert section.notes == ["19 more cells in report.html and comparison.csv"]


def test_what_failed_and_what_is_wrong_is_said_where_the_others_have_their_verdict() -> None:
    broken = record("jemalloc", [0.001], failure="allocator: asked for jemalloc")
    wrong = record("tcmalloc", [0.001] * 3, quality="rel_l2 0.5 is past the tolerance of 0.0001")
    lines = printed(ranked([record("ptmalloc", [0.02] * 3), wrong, broken], "ptmalloc"), 80)
    assert any(line.startswith("tcmalloc") and "WRONG output" in line for line in lines)
    assert any(line.startswith("jemalloc") and "FAILED" in line for line in lines)


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (80, CAUSE),
        (45, "page faults per iteration 973 k -> 1.19 M"),
        (30, "page faults 973 k -> 1.19 M"),
        (25, "page faults 973k→1.19M"),
        (15, "page faults"),
        (8, "page fa…"),
    ],
)
def test_a_cause_is_shortened_step_by_step(width: int, text: str) -> None:
    assert fitting.shortened(CAUSE, width) == text


@pytest.mark.parametrize("variable", ["NO_COLOR", "CI"])
def test_without_colours_and_in_ci_a_terminal_gets_plain_text(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "CI"):
        monkeypatch.delenv(name, raising=False)
    assert terminal.make_console().is_terminal
    monkeypatch.setenv(variable, "1")
    console = terminal.make_console()
    with console.capture() as capture:
        console.print("[bold red]x[/bold red]")
    assert capture.get() == "x\n"
