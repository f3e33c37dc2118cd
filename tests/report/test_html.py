from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from time import process_time

import pytest

from runner.analysis import effects
from runner.analysis.ranking import Ranking
from runner.analysis.verdict import Conclusion, verdict
from runner.report import html, sweep_end
from runner.results.outcome import CellRecord, read_cell
from tests.builders import contaminated, noisy_record, ranked, store_cell

SHOWN = ("allocator", "ipex")
HOSTILE = "<script>alert(1)</script>|`x`\n# $\\frac$ \"'&"


BASE = noisy_record("ptmalloc", 20.0, 20.2, 19.9)
FAST = noisy_record("tcmalloc", 10.0, 10.1, 9.9)
NEAR = noisy_record("tcmalloc", 19.0, 21.0, 18.9)
BROKEN = noisy_record("jemalloc", failure="asked for jemalloc")


def ranking_of(*records: CellRecord) -> Ranking:
    return ranked(records, BASE.cell_id, SHOWN)


def many(cells: int) -> list[CellRecord]:
    """The baseline, and as many faster cells of five rounds; the first of them is the fastest."""
    return [BASE, *(noisy_record(f"a{n:03}", *(10 + n / 100 + r / 10 for r in range(5)), n=20) for n in range(cells))]


def conclude(*records: CellRecord) -> Conclusion:
    return verdict(ranking_of(*records).rows, SHOWN)


def written(folder: Path, ranking: Ranking, origin: html.Origin | None = None) -> tuple[str, str]:
    html.write(ranking, folder, "exp, sweep 1", ["operators: a -> b"], origin or html.Origin())
    return (folder / "report.html").read_text(), (folder / "report.md").read_text()


class Page(HTMLParser):
    """What a browser would load or run, which sections there are, and whether every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.tags: set[str] = set()
        self.loaded: list[str] = []
        self.handlers: list[str] = []
        self.ids: list[str] = []
        self.languages: list[str] = []
        self.headings: list[int] = []
        self.unnamed: list[str] = []
        """Regions, pictures and navigations without a name."""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        if tag in ("section", "header"):
            self.sections.append(found.get("id") or "")
        self.ids += [found["id"] or ""] if "id" in found else []
        self.languages += [found["lang"] or ""] if "lang" in found else []
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        needs_name = tag in ("img", "nav") or found.get("role") in ("img", "region")
        if needs_name and not (found.get("alt") or found.get("aria-label")):
            self.unnamed.append(tag)
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
    said = conclude(BASE, FAST, BROKEN)
    assert said.sentence.startswith("Fastest: tcmalloc without IPEX, 10.01 ms, 2.00x the baseline (ptmalloc without")
    assert re.search(r"The difference is real \(95 % interval 1\.9\dx to 2\.0\dx\)\.$", said.sentence)
    assert said.remarks == ("1 of 3 cells failed.",)


def test_an_undecided_difference_is_not_called_real() -> None:
    said = conclude(BASE, NEAR).sentence
    assert said.startswith("No clear difference: tcmalloc without IPEX, ")
    assert re.search(r"A difference of \d+ % or more would have shown\.$", said)
    assert "is real" not in said


@pytest.mark.parametrize("which", [0, 1], ids=["baseline", "fastest"])
def test_with_a_contaminated_round_that_is_said_first_and_no_difference_is_real(which: int, tmp_path: Path) -> None:
    records = [BASE, FAST]
    records[which] = contaminated(records[which], 1)
    ranking = ranking_of(*records)
    said = conclude(*records)
    assert said.warning.startswith("This comparison can't be trusted: 1 of 6 rounds was disturbed (other processes")
    assert "difference is real" not in said.sentence
    assert "Whether that is real can't be told from disturbed rounds" in said.sentence
    text, markdown = written(tmp_path, ranking)
    assert text.index("This comparison can&#39;t be trusted") < text.index("Fastest: ")
    assert "| can't be trusted |" in markdown
    assert text.count("<td>can&#39;t be trusted</td>") == (2 if which == 0 else 1)


def test_a_contaminated_round_of_another_cell_is_said_and_leaves_the_fastest_its_difference() -> None:
    said = conclude(BASE, FAST, contaminated(noisy_record("jemalloc", 15.0, 15.1, 14.9), 0))
    assert said.warning.endswith(": what is said of one cell can't be trusted.")
    assert "The difference is real" in said.sentence


def test_the_fastest_is_not_told_apart_from_a_contaminated_next_cell() -> None:
    slower = contaminated(noisy_record("jemalloc", 15.0, 15.1, 14.9), 0)
    assert conclude(BASE, FAST, slower).remarks[0].endswith("has 1.33x.")


def test_one_round_can_not_tell() -> None:
    said = conclude(noisy_record("ptmalloc", 20.0), noisy_record("tcmalloc", 10.0)).sentence
    assert "One round can't tell whether that is real; rounds=5 can." in said


def test_a_baseline_that_is_fastest_is_said_to_be() -> None:
    said = conclude(BASE, noisy_record("jemalloc", 40.0, 40.2, 39.9)).sentence
    assert said.startswith("Fastest: the baseline, ptmalloc without IPEX, 20.")
    assert "The difference is real (95 % interval 0." in said
    assert "One round can't tell" in conclude(noisy_record("ptmalloc", 1.0), noisy_record("jemalloc", 2.0)).sentence
    undecided = conclude(BASE, noisy_record("jemalloc", 20.0, 23.0, 20.1)).sentence
    assert undecided.startswith("No clear difference: the baseline, ptmalloc")


def test_nothing_measured_is_said_with_the_first_failure() -> None:
    said = conclude(BROKEN).sentence
    assert said == "Nothing was measured: the only cell has no time; the first failure: asked for jemalloc."
    assert conclude().sentence == "Nothing was measured: no job has ended."


def test_a_wrong_output_never_wins_and_is_named_when_it_was_quicker() -> None:
    wrong = noisy_record("jemalloc", 5.0, 5.1, 4.9, quality="rel_l2 0.5 above 0.1")
    said = conclude(BASE, FAST, wrong)
    assert said.sentence.startswith("Fastest: tcmalloc")
    assert any(
        re.match(r"jemalloc without IPEX took only .* its output is wrong \(rel_l2 0.5", line) for line in said.remarks
    )
    assert conclude(wrong).sentence.startswith("No cell wins: every output")


def test_without_a_right_time_of_the_baseline_there_is_no_speed_up() -> None:
    failed = noisy_record("ptmalloc", failure="killed")
    said = verdict(ranked([failed, FAST], failed.cell_id).rows, SHOWN).sentence
    assert "There is no right time of the baseline (ptmalloc without IPEX)" in said


def test_one_cell_alone_is_told_apart_from_a_comparison() -> None:
    assert "no other cell was measured" in conclude(BASE).sentence


def test_each_work_has_a_verdict_of_its_own() -> None:
    large = [noisy_record("ptmalloc", 200.0, 202.0, 199.0, model="large")]
    large += [noisy_record("tcmalloc", 50.0, 50.5, 49.5, model="large"), noisy_record("x", failure="no", model="large")]
    records = [BASE, FAST, *large]
    said = verdict(ranked(records, BASE.cell_id, ("model", *SHOWN)).rows, ("model", *SHOWN))
    assert said.sentence.startswith("For tiny, fastest: tcmalloc without IPEX, 10.01 ms, 2.00x the baseline (ptmalloc")
    [other, failures] = said.remarks
    assert re.match(
        r"For large, fastest: tcmalloc without IPEX, \S+ ms, \S+x the baseline \(ptmalloc without IPEX, 200", other
    )
    assert "The difference is real" in other
    assert failures == "1 of 5 cells failed."
    models = [noisy_record("ptmalloc", 1.0, model=name) for name in ("tiny", "large")]
    alone = verdict(ranked(models, models[0].cell_id, ("model",)).rows, ("model",))
    assert alone.sentence.startswith("tiny took 1.001 ms; no other cell")
    assert alone.remarks[0].startswith("large took 1.001 ms; no other cell")


def test_the_next_cell_is_named_and_whether_it_is_told_apart_from_the_fastest() -> None:
    close = noisy_record("jemalloc", 10.2, 9.95, 10.05)
    assert "no clear difference from the fastest" in conclude(BASE, FAST, close).remarks[0]
    clear = noisy_record("jemalloc", 15.0, 15.1, 14.9)
    assert "no clear difference" not in conclude(BASE, FAST, clear).remarks[0]


GRID = [
    BASE,
    FAST,
    noisy_record("ptmalloc", 16.0, 16.1, 15.9, ipex="on"),
    noisy_record("tcmalloc", 8.0, 8.1, 7.9, ipex="on"),
    BROKEN,
]


def test_an_axis_is_judged_by_cells_that_are_equal_in_all_others() -> None:
    found = effects.effects(ranking_of(*GRID).rows, SHOWN)
    assert [(one.axis, one.value, one.reference, one.mean.count) for one in found] == [
        ("allocator", "tcmalloc", "ptmalloc", 2),
        ("ipex", "on", "off", 2),
    ]
    assert found[0].mean.ratio == pytest.approx(2.0, rel=0.02)
    assert found[1].mean.interval is not None
    assert found[1].mean.ratio in found[1].mean.interval
    assert found[1].mean.ratio == pytest.approx(1.25, rel=0.02)


def test_cells_of_other_work_and_wrong_ones_are_no_pair() -> None:
    records = [BASE, noisy_record("ptmalloc", 1.0, model="large"), noisy_record("tcmalloc", 1.0, quality="wrong")]
    assert effects.effects(ranking_of(*records).rows, ("allocator", "ipex", "model")) == []


def test_a_heat_map_needs_most_of_its_grid() -> None:
    ranking = ranking_of(*GRID)
    heat = effects.grid(ranking.rows, effects.effects(ranking.rows, SHOWN))
    assert heat is not None
    assert (heat.down, heat.across, heat.several) == ("allocator", "ipex", False)
    assert len(heat.speedups) == 4
    two = ranking_of(BASE, FAST).rows
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
    text, markdown = written(tmp_path, ranking_of(*GRID), origin)
    page = Page(text)
    assert page.sections == [
        *("verdict", "ranking", "time", "effects", "heat", "distributions", "drift"),
        *("published", "timeline", "evidence", "cells", "reproduce"),
    ]
    assert not page.tags & {"link", "iframe", "object"}
    assert text.count("<script") == 1
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
    for told in ("**Fastest: tcmalloc with IPEX, ", "CPU 1, cores 0-1", "c0ffee", "here 1.90x"):
        assert told in markdown


def test_the_ranking_has_p99_with_its_interval_or_says_what_it_needs(tmp_path: Path) -> None:
    many = noisy_record("tcmalloc", 10.0, 10.1, 9.9, n=200)
    ranking = ranking_of(BASE, many, BROKEN)
    p99 = ranking.rows[0].metrics["latency/p99_ms"]
    low, high = (ranking.rows[0].metrics[f"latency/p99_ci95_{end}_ms"] for end in ("low", "high"))
    text, markdown = written(tmp_path, ranking)
    assert f'<td class="n" data-v="{p99}">{p99:.4g}<small>{low:.4g} to {high:.4g}</small></td>' in text
    assert (
        text.count('<td class="n need" data-v="">needs 200 latencies</td>') == 1
    )  # the failed cell has nothing at all
    lines = [line.split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    column = lines[0].index("p99 ms")
    assert [line[column] for line in lines[1:]] == ["---:", f"{p99:.4g}", "needs 200 latencies", "-"]


def test_hostile_names_and_failures_stay_text(tmp_path: Path) -> None:
    ranking = ranking_of(
        BASE,
        noisy_record(HOSTILE, 10.0, 10.1),
        noisy_record("jemalloc", failure=HOSTILE),
        noisy_record("x", 3.0, quality=HOSTILE),
    )
    text, markdown = written(tmp_path, ranking, html.Origin(HOSTILE, HOSTILE, (HOSTILE,)))
    page = Page(text)
    assert text.count("<script") == 1  # ours
    assert not page.handlers
    assert "&lt;script&gt;" in text
    # The command alone is as it was: a block of code that no line of it can end.
    assert [line for line in markdown.splitlines() if "<script" in line] == [HOSTILE.replace("\n", " ")]
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(ranking.rows)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {len(re.findall(r"\|", table[1]))}


def test_the_end_of_a_sweep_leaves_both_reports(tmp_path: Path) -> None:
    sweep_end.leave(ranking_of(BASE, FAST), tmp_path, "exp, sweep 1", html.Origin("python -m runner -m x=1,2"))
    assert {"report.html", "report.md", "comparison.csv"} <= {file.name for file in tmp_path.iterdir()}
    assert "python -m runner -m x=1,2" in (tmp_path / "report.md").read_text()


def test_captures_are_listed_once_for_all_cells_that_agree(tmp_path: Path) -> None:
    tagged = [
        replace(
            record, outcomes=[replace(outcome, captures={"tma": "unavailable: no PMU"}) for outcome in record.outcomes]
        )
        for record in (BASE, FAST)
    ]
    text, _ = written(tmp_path, ranking_of(*tagged))
    checks = text[text.index('<section id="evidence">') : text.index('<section id="cells">')]
    assert checks.count("unavailable: no PMU") == 1
    assert "all cells" in checks


@pytest.mark.parametrize(
    "records", [[], [BROKEN], [BASE], [BROKEN, BASE], [noisy_record("ptmalloc", 2.0, quality="wrong")]]
)
def test_it_works_with_whatever_was_measured(tmp_path: Path, records: list[CellRecord]) -> None:
    text, markdown = written(tmp_path, ranking_of(*records))
    assert Page(text).sections[:2] == ["verdict", "ranking"]
    assert "**" in markdown.splitlines()[0] + markdown.splitlines()[2]


@pytest.mark.slow
def test_thirty_cells_of_five_processes_stay_under_a_megabyte_and_a_half(tmp_path: Path) -> None:
    records = [BASE] + [
        noisy_record(f"allocator-{i:02}", *(10.0 + i + 0.1 * r for r in range(5)), n=1000) for i in range(29)
    ]
    text, markdown = written(tmp_path, ranking_of(*records))
    assert len(text) < 1_500_000
    assert len(markdown.splitlines()) <= 40
    assert "18 more cells are in report.html" in markdown


def test_the_report_of_a_hundred_cells_takes_seconds_and_draws_all_of_them(tmp_path: Path) -> None:
    ranking = ranking_of(*many(99))
    begun = process_time()
    text, _ = written(tmp_path, ranking)
    assert process_time() - begun < 8  # 0.6 on the machine this was written on; with matplotlib it was 23
    assert text.count("data:image/png") == 99 * 5 + 3
    assert "Drawn are" not in text


def test_of_more_cells_than_a_picture_has_room_for_the_fastest_and_the_baseline_are_drawn(tmp_path: Path) -> None:
    ranking = ranking_of(*many(120))
    assert ranking.rows[-1].is_baseline
    text, _ = written(tmp_path, ranking)
    assert text.count("Drawn are 100 of 121 cells: the fastest, and the baseline.") == 1
    assert text.count("data:image/png") == 99 * 5 + 3
    lanes = text[text.index('id="distributions"') : text.index('id="drift"')]
    assert "ptmalloc, ipex=off (baseline)" in lanes
    assert "a098," in lanes
    assert "a099," not in lanes
    assert "a119," in text


def test_a_file_that_can_not_be_drawn_is_said_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object) -> None:
        raise KeyError("odd")

    monkeypatch.setattr("runner.report.timeline.draw", fails)
    (tmp_path / "host.json").write_text('{"host_id": "h", "versions": {}}')
    said = sweep_end.leave(ranking_of(*GRID), tmp_path, "title")
    assert "timeline.png or operators.csv could not be written: KeyError: 'odd'" in said
    assert {"comparison.csv", "cells.parquet", "comparison.png", "report.html"} <= {p.name for p in tmp_path.iterdir()}


def test_the_report_s_heading_says_what_all_cells_worked_on(tmp_path: Path) -> None:
    page, _ = written(tmp_path, ranking_of(BASE, FAST))
    heading = page.partition("</header>")[0]
    assert "tiny, batch 4, sequence length x, x" in heading
    # What they differ in is in the table's columns.
    large = noisy_record("ptmalloc", 10.0, 10.1, 9.9, model="large")
    assert '<p class="measured">batch 4, ' in written(tmp_path, ranking_of(BASE, large))[0].partition("</header>")[0]


def test_the_markdown_of_many_cells_fits_a_pull_request_and_has_the_baseline(tmp_path: Path) -> None:
    ranking = ranking_of(*many(60), *(noisy_record(f"x{n}", failure="asked for it") for n in range(30)))
    host = {"cpu_model": "CPU 1", "cpus_allowed": "0-1", "versions": {"torch": "2.8.0"}}
    (tmp_path / "host.json").write_text(json.dumps(host))
    origin = html.Origin("python -m runner -m x=1,2", "c0ffee", tuple(f"theirs {n} | ours {n}" for n in range(5)))
    html.write(ranking, tmp_path, "exp, sweep 1", [f"remark {n}" for n in range(5)], origin)
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert len(lines) <= 40
    assert (
        lines.index("</details>")
        > lines.index("- theirs 0; ours 0")
        > lines.index("<details><summary>Notes, and how to reproduce it</summary>")
    )
    assert lines[2].startswith("**Fastest: a000 without IPEX, ")
    assert any(line.startswith("| ptmalloc | off ") for line in lines)


def test_every_link_in_the_page_leads_to_a_place_in_it(tmp_path: Path) -> None:
    for name in ("ptmalloc", "tcmalloc"):
        store_cell(tmp_path, name, 20.0, {})
        (tmp_path / "cells" / name / "round-0" / "stderr.log").write_text("first line\n" + "x\n" * 50 + "last of it\n")
    records = [record for name in ("ptmalloc", "tcmalloc") if (record := read_cell(tmp_path, name))]
    plan = {"cells": [{"cell_id": "tcmalloc", "axes": {}, "command": "python -m runner allocator=tcmalloc"}]}
    (tmp_path / "plan.json").write_text(json.dumps({**plan, "order": [], "sweep_id": "s"}))
    html.write(ranked(records, "ptmalloc"), tmp_path, "title", [], html.Origin())
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    links = {value[1:] for value in page.loaded if value.startswith("#")}
    assert links - set(page.ids) == set()
    assert {"ranking", "cells", "cell-1", "cell-2"} <= links
    assert len(page.ids) == len(set(page.ids))
    cells = text[text.index('<section id="cells">') :]
    assert "aten::conv2d" in cells
    assert "last of it" in cells
    assert "first line" not in cells
    assert "python -m runner allocator=tcmalloc" in cells


def test_the_page_keeps_simple_rules_of_accessibility(tmp_path: Path) -> None:
    """What a whole checker looks for needs a browser; these are the rules that a change breaks most easily."""
    page = Page(written(tmp_path, ranking_of(*GRID))[0])
    assert page.languages == ["en"]
    assert page.sections[0] == "verdict"
    levels = page.headings
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page.unnamed == []


@pytest.mark.parametrize("speedup", [1.0, 1.2, 1.4, 1.6, 1.8, 2.0])
def test_the_figures_of_the_heat_map_have_the_contrast_that_wcag_asks_for(speedup: float) -> None:
    def luminance(color: str) -> float:
        levels = [level / 255 for level in bytes.fromhex(color[1:])]
        red, green, blue = (v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in levels)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted(map(luminance, html._shade(speedup, [1.0, 2.0])))
    assert (high + 0.05) / (low + 0.05) >= 4.5
