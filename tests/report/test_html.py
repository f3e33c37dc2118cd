from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from runner.analysis import effects
from runner.analysis.ranking import Row, rank
from runner.analysis.verdict import verdict
from runner.protocol.resultfile import WorkerResult
from runner.protocol.verdicts import EvidenceVerdict, Status
from runner.report import closing, html
from runner.results.outcome import CellRecord, Outcome
from tests.report.test_report import axes, contaminated

SHOWN = ("allocator", "ipex")
HOSTILE = "<script>alert(1)</script>|`x`\n# $\\frac$ \"'&"


def cell(
    allocator: str,
    *medians: float,
    ipex: str = "off",
    quality: str = "ok",
    failure: str | None = None,
    n: int = 5,
    model: str = "tiny",
) -> CellRecord:
    """A cell with a round a median (ms); failed when it has a failure."""
    values = axes(allocator=allocator, ipex=ipex, model=model)
    name = f"{allocator}-{ipex}-{model}"
    status = Status.FAILED if failure else Status.FINISHED
    evidence = EvidenceVerdict.MISMATCH if failure else EvidenceVerdict.OK
    outcomes = [
        Outcome(name, number, values, status, failure, evidence, quality, "avx512")
        for number in range(max(len(medians), 1))
    ]
    noise = np.random.default_rng(0)
    results = {
        (number, 0): WorkerResult(name, number, [1e-3 * ms * f for f in 1 + 0.01 * noise.standard_normal(n)], None)
        for number, ms in enumerate(medians)
    }
    return CellRecord(name, values, outcomes, results)


BASE = cell("ptmalloc", 20.0, 20.2, 19.9)
FAST = cell("tcmalloc", 10.0, 10.1, 9.9)
NEAR = cell("tcmalloc", 19.0, 21.0, 18.9)
BROKEN = cell("jemalloc", failure="asked for jemalloc")


def ranked(*records: CellRecord) -> list[Row]:
    return rank(records, BASE.cell_id)


def written(folder: Path, rows: Sequence[Row], origin: html.Origin | None = None) -> tuple[str, str]:
    html.write(rows, SHOWN, folder, "exp, sweep 1", ["operators: a -> b"], origin or html.Origin())
    return (folder / "report.html").read_text(), (folder / "report.md").read_text()


class Page(HTMLParser):
    """What a browser would load or run, which sections there are, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.tags: set[str] = set()
        self.loaded: list[str] = []
        self.handlers: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        if tag in ("section", "header"):
            self.sections.append(found.get("id") or "")
        self.loaded += [value or "" for key, value in attrs if key in ("src", "href", "xlink:href", "srcset", "data")]
        self.handlers += [key for key, _ in attrs if key.startswith("on")]
        if tag not in ("meta", "img", "br", "link"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self._open and self._open[-1] == tag:
            self._open.pop()


def test_a_decided_difference_is_said_to_be_real_with_its_interval() -> None:
    said = verdict(ranked(BASE, FAST, BROKEN), SHOWN)
    assert said.sentence.startswith("tcmalloc, ipex=off was fastest: 2.0")
    assert re.search(r"95 % interval 1\.9\dx to 2\.0\dx; the difference is real", said.sentence)
    assert said.beside == ("1 of 3 cells failed.",)


def test_an_undecided_difference_is_not_called_real() -> None:
    said = verdict(ranked(BASE, NEAR), SHOWN).sentence
    assert "is undecided (one under" in said
    assert "is real" not in said


@pytest.mark.parametrize("which", [0, 1], ids=["baseline", "fastest"])
def test_with_a_contaminated_round_that_is_said_first_and_no_difference_is_real(which: int, tmp_path: Path) -> None:
    records = [BASE, FAST]
    records[which] = contaminated(records[which], 1)
    rows = ranked(*records)
    said = verdict(rows, SHOWN).sentence
    assert said.startswith("This comparison can't be trusted: 1 of 6 rounds were contaminated (other processes took")
    assert "is real;" not in said
    assert said.endswith("whether that is real can't be told from contaminated rounds.")
    text, markdown = written(tmp_path, rows)
    assert text.index("This comparison can&#39;t be trusted") < text.index("was fastest")
    assert "| can't be trusted |" in markdown
    assert text.count("<td>can&#39;t be trusted</td>") == (2 if which == 0 else 1)


def test_a_contaminated_round_of_another_cell_is_said_and_leaves_the_fastest_its_difference() -> None:
    said = verdict(ranked(BASE, FAST, contaminated(cell("jemalloc", 15.0, 15.1, 14.9), 0)), SHOWN).sentence
    assert said.startswith("This comparison can't be trusted")
    assert "the difference is real" in said


def test_the_fastest_is_not_told_apart_from_a_contaminated_next_cell() -> None:
    slower = contaminated(cell("jemalloc", 15.0, 15.1, 14.9), 0)
    assert verdict(ranked(BASE, FAST, slower), SHOWN).beside[0].endswith("has 1.33x.")


def test_one_round_can_not_tell() -> None:
    said = verdict(ranked(cell("ptmalloc", 20.0), cell("tcmalloc", 10.0)), SHOWN).sentence
    assert "one round can't tell whether that is real (rounds=5 does)" in said


def test_a_baseline_that_is_fastest_is_said_to_be() -> None:
    said = verdict(ranked(BASE, cell("jemalloc", 40.0, 40.2, 39.9)), SHOWN).sentence
    assert said.startswith("No cell is faster than the baseline, ptmalloc, ipex=off (20.")
    assert said.endswith("that difference is real.")
    assert "one round can't tell" in verdict(ranked(cell("ptmalloc", 1.0), cell("jemalloc", 2.0)), SHOWN).sentence
    assert "is undecided" in verdict(ranked(BASE, cell("jemalloc", 20.0, 23.0, 20.1)), SHOWN).sentence


def test_nothing_measured_is_said_with_the_first_failure() -> None:
    said = verdict(ranked(BROKEN), SHOWN).sentence
    assert said == "Nothing was measured: the only cell has no time; the first failure: asked for jemalloc."
    assert verdict([], SHOWN).sentence == "Nothing was measured: no job has ended."


def test_a_wrong_output_never_wins_and_is_named_when_it_was_quicker() -> None:
    wrong = cell("jemalloc", 5.0, 5.1, 4.9, quality="rel_l2 0.5 above 0.1")
    said = verdict(ranked(BASE, FAST, wrong), SHOWN)
    assert said.sentence.startswith("tcmalloc")
    assert any(
        re.match(r"jemalloc, ipex=off took only .* its output is wrong \(rel_l2 0.5", line) for line in said.beside
    )
    assert verdict(ranked(wrong), SHOWN).sentence.startswith("No cell wins: every output")


def test_without_a_right_time_of_the_baseline_there_is_no_speed_up() -> None:
    failed = cell("ptmalloc", failure="killed")
    said = verdict(rank([failed, FAST], failed.cell_id), SHOWN).sentence
    assert "there is no right time of the baseline (ptmalloc, ipex=off)" in said


def test_one_cell_alone_and_cells_of_other_work_are_told_apart_from_a_comparison() -> None:
    assert "no other cell was measured" in verdict(ranked(BASE), SHOWN).sentence
    other = verdict(ranked(BASE, cell("tcmalloc", 1.0, model="large")), SHOWN)
    assert "1 cell is of other work" in " ".join(other.beside)


def test_the_next_cell_is_named_and_whether_it_is_told_apart_from_the_fastest() -> None:
    close = cell("jemalloc", 10.05, 10.2, 9.95)
    assert "which of the two is faster is not shown" in verdict(ranked(BASE, FAST, close), SHOWN).beside[0]
    clear = cell("jemalloc", 15.0, 15.1, 14.9)
    assert "not shown" not in verdict(ranked(BASE, FAST, clear), SHOWN).beside[0]


GRID = [
    BASE,
    FAST,
    cell("ptmalloc", 16.0, 16.1, 15.9, ipex="on"),
    cell("tcmalloc", 8.0, 8.1, 7.9, ipex="on"),
    BROKEN,
]


def test_an_axis_is_judged_by_cells_that_are_equal_in_all_others() -> None:
    found = effects.effects(ranked(*GRID), SHOWN)
    assert [(one.axis, one.value, one.reference, one.mean.count) for one in found] == [
        ("allocator", "tcmalloc", "ptmalloc", 2),
        ("ipex", "on", "off", 2),
    ]
    assert found[0].mean.ratio == pytest.approx(2.0, rel=0.02)
    assert found[1].mean.interval is not None
    assert found[1].mean.ratio in found[1].mean.interval
    assert found[1].mean.ratio == pytest.approx(1.25, rel=0.02)


def test_cells_of_other_work_and_wrong_ones_are_no_pair() -> None:
    records = [BASE, cell("ptmalloc", 1.0, model="large"), cell("tcmalloc", 1.0, quality="wrong")]
    assert effects.effects(ranked(*records), ("allocator", "ipex", "model")) == []


def test_a_heat_map_needs_most_of_its_grid() -> None:
    rows = ranked(*GRID)
    heat = effects.grid(rows, effects.effects(rows, SHOWN))
    assert heat is not None
    assert (heat.down, heat.across, heat.several) == ("allocator", "ipex", False)
    assert len(heat.known) == 4
    two = ranked(BASE, FAST)
    assert effects.grid(two, effects.effects(two, SHOWN)) is None


def test_the_report_has_every_section_in_order_and_loads_nothing(tmp_path: Path) -> None:
    (tmp_path / "timeline.png").write_bytes(b"\x89PNG")
    (tmp_path / "host.json").write_text(
        json.dumps({"cpu_model": "CPU 1", "cpus_allowed": "0-1", "versions": {"a": "1"}})
    )
    excluded = [{"axes": dict(BASE.axes), "reason": "needs AMX"}]
    (tmp_path / "plan.json").write_text(
        json.dumps({"sweep_id": "id-7", "seed": 3, "excluded": excluded, "cells": [], "order": [{}]})
    )
    origin = html.Origin("python -m runner -m x=1,2", "c0ffee", ("tutorial: 2.00x | here 1.90x",))
    text, markdown = written(tmp_path, ranked(*GRID), origin)
    page = Page(text)
    assert page.sections == [
        *("verdict", "ranking", "time", "effects", "heat", "distributions", "drift"),
        *("published", "timeline", "evidence", "reproduce"),
    ]
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert page.loaded
    assert all(value.startswith(("data:image/png", "#")) for value in page.loaded)
    assert "url(http" not in text
    assert "@import" not in text
    for told in (
        "needs AMX",
        "CPU 1",
        "id-7",
        "c0ffee",
        "here 1.90x",
        "python -m runner -m x=1,2",
        "FAILED",
        "1 planned job",
    ):
        assert told in text
    for told in ("**tcmalloc, ipex=on was fastest", "CPU 1, cores 0-1", "id-7", "c0ffee", "here 1.90x"):
        assert told in markdown


def test_the_ranking_has_p99_with_its_interval_or_says_what_it_needs(tmp_path: Path) -> None:
    many = cell("tcmalloc", 10.0, 10.1, 9.9, n=200)
    rows = ranked(BASE, many, BROKEN)
    p99 = rows[0].metrics["latency/p99_ms"]
    low, high = (rows[0].metrics[f"latency/p99_ci95_{end}_ms"] for end in ("low", "high"))
    text, markdown = written(tmp_path, rows)
    assert f'<td class="n">{p99:.4g}<small>{low:.4g} to {high:.4g}</small></td>' in text
    assert text.count('<td class="n need">needs 200 samples</td>') == 1  # the failed cell has nothing at all
    lines = [line.split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    column = lines[0].index("p99 ms")
    assert [line[column] for line in lines[1:]] == ["---:", f"{p99:.4g}", "needs 200 samples", "-"]


def test_hostile_names_and_failures_stay_text(tmp_path: Path) -> None:
    rows = ranked(BASE, cell(HOSTILE, 10.0, 10.1), cell("jemalloc", failure=HOSTILE), cell("x", 3.0, quality=HOSTILE))
    text, markdown = written(tmp_path, rows, html.Origin(HOSTILE, HOSTILE, (HOSTILE,)))
    page = Page(text)
    assert "script" not in page.tags
    assert not page.handlers
    assert "&lt;script&gt;" in text
    # The command alone is as it was: an indented block of code.
    assert [line for line in markdown.splitlines() if "<script" in line] == ["    " + HOSTILE.replace("\n", " ")]
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {len(re.findall(r"\|", table[1]))}


def test_the_end_of_a_sweep_leaves_both_reports(tmp_path: Path) -> None:
    closing.leave(ranked(BASE, FAST), SHOWN, tmp_path, "exp, sweep 1", html.Origin("python -m runner -m x=1,2"))
    assert {"report.html", "report.md", "comparison.csv"} <= {file.name for file in tmp_path.iterdir()}
    assert "python -m runner -m x=1,2" in (tmp_path / "report.md").read_text()


def test_captures_are_listed_once_for_all_cells_that_agree(tmp_path: Path) -> None:
    tagged = [
        replace(
            record, outcomes=[replace(outcome, captures={"tma": "unavailable: no PMU"}) for outcome in record.outcomes]
        )
        for record in (BASE, FAST)
    ]
    text, _ = written(tmp_path, ranked(*tagged))
    assert text.count("unavailable: no PMU") == 1
    assert "all cells" in text


@pytest.mark.parametrize("records", [[], [BROKEN], [BASE], [BROKEN, BASE], [cell("ptmalloc", 2.0, quality="wrong")]])
def test_it_works_with_whatever_was_measured(tmp_path: Path, records: list[CellRecord]) -> None:
    text, markdown = written(tmp_path, ranked(*records))
    assert Page(text).sections[:2] == ["verdict", "ranking"]
    assert markdown.startswith("### exp, sweep 1\n\n**")


@pytest.mark.slow
def test_thirty_cells_of_five_processes_stay_under_a_megabyte_and_a_half(tmp_path: Path) -> None:
    records = [BASE] + [cell(f"allocator-{i:02}", *(10.0 + i + 0.1 * r for r in range(5)), n=1000) for i in range(29)]
    text, markdown = written(tmp_path, ranked(*records))
    assert len(text) < 1_500_000
    assert len(markdown.splitlines()) < 60
    assert "10 more cells are in report.html" in markdown


def test_a_file_that_can_not_be_drawn_is_said_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise KeyError("odd")

    monkeypatch.setattr("runner.report.timeline.draw", fails)
    (tmp_path / "host.json").write_text('{"host_id": "h", "versions": {}}')
    said = closing.leave(ranked(*GRID), SHOWN, tmp_path, "title")
    assert "timeline.png or operators.csv could not be written: KeyError: 'odd'" in said
    assert {"comparison.csv", "cells.parquet", "comparison.png", "report.html"} <= {p.name for p in tmp_path.iterdir()}
