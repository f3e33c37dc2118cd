"""compare: what is ranked with what, which sweeps are refused, and that every format says the same."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.compare import write_sweep
from runner.analysis import comparison, pareto_front
from runner.commands import compare
from runner.protocol.errors import RunnerError
from runner.report.data import as_data
from runner.report.notes import ONE_ROUND
from runner.results.cells import CellRow, Cells, Origin
from tests.builders import compared_cell, store_compared
from tests.conftest import CELL, ask

HERE = Origin("", "here", {"governor": "performance"}, {"torch": "2.8.0", "intel-extension-for-pytorch": "2.8.0"})
LEVELS = {
    "allocator": ("ptmalloc", "jemalloc", "tcmalloc"),
    "ipex": ("off", "on"),
    "graph": ("eager", "torchscript"),
    "threads": ("1", "2"),
}
Show = Callable[..., str]


def matrix(**changes: Any) -> list[CellRow]:
    """tcmalloc twice as fast, IPEX 1.5 times, both together 1.25 times faster than that; all else changes nothing."""
    found = []
    for number, values in enumerate(itertools.product(*LEVELS.values())):
        axes = dict(zip(LEVELS, values, strict=True))
        fast, ipex = axes["allocator"] == "tcmalloc", axes["ipex"] == "on"
        speedup = (2 if fast else 1) * (1.5 if ipex else 1) * (1.25 if fast and ipex else 1)
        found.append(compared_cell(number, 0.1 / speedup, **{**axes, **changes}))
    return found


def put(mlruns: Path, name: str, rows: Sequence[CellRow], origin: Origin = HERE) -> None:
    store_compared(mlruns, name, rows, origin)


@pytest.fixture
def show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Show:
    def shown(*words: str) -> str:
        assert compare.main([*words, "--mlruns", str(tmp_path)]) == 0
        return capsys.readouterr().out

    return shown


def as_json(show: Show, *words: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(show(*words, "--format", "json"))
    return data


def test_the_planted_effects_and_their_interaction_are_found_and_no_other(tmp_path: Path, show: Show) -> None:
    put(tmp_path, "a", matrix())
    data = as_json(show)
    effects = {(e["axis"], e["value"]): e for e in data["effects"]}
    assert effects["allocator", "tcmalloc"]["ratio"] == pytest.approx(2 * 1.25**0.5, rel=0.02)
    assert effects["allocator", "tcmalloc"]["difference"] == "faster"
    assert effects["ipex", "on"]["ratio"] == pytest.approx(1.5 * 1.25 ** (1 / 3), rel=0.02)
    assert effects["ipex", "on"]["pairs"] == 12
    assert effects["graph", "torchscript"]["difference"] == "undecided"
    assert effects["allocator", "jemalloc"]["difference"] == "undecided"
    first, *rest = data["interactions"]
    assert first["values"] == {"allocator": "tcmalloc", "ipex": "on"}
    assert first["against"] == {"allocator": "ptmalloc", "ipex": "off"}
    assert first["ratio"] == pytest.approx(1.25, rel=0.02)
    assert first["difference"] == "better together"
    assert {other["difference"] for other in rest} <= {"undecided", "-"}


def test_cells_are_ranked_with_intervals_and_equal_ones_are_undecided(tmp_path: Path, show: Show) -> None:
    put(tmp_path, "a", matrix())
    (group,) = as_json(show)["groups"]
    assert group["baseline"] == f"{0:012x}"
    times = [cell["p50_ms"] for cell in group["cells"]]
    assert times == sorted(times)
    by_axes = {tuple(cell["labels"][axis] for axis in LEVELS): cell for cell in group["cells"]}
    fastest = by_axes["tcmalloc", "on", "eager", "1"]
    assert fastest["difference"] == "faster"
    assert fastest["speedup_low"] < 3.75 < fastest["speedup_high"]
    assert by_axes["jemalloc", "off", "eager", "1"]["difference"].startswith("undecided")
    assert by_axes["ptmalloc", "off", "eager", "1"]["speedup"] == 1


def test_the_baseline_can_be_chosen(tmp_path: Path, show: Show) -> None:
    put(tmp_path, "a", matrix())
    data = as_json(show, "--baseline", "allocator=tcmalloc,ipex=on")
    (group,) = data["groups"]
    base = next(cell for cell in group["cells"] if cell["is_baseline"])
    assert (base["labels"]["allocator"], base["labels"]["ipex"]) == ("tcmalloc", "on")
    assert {(e["axis"], e["against"]) for e in data["effects"]} >= {("allocator", "tcmalloc"), ("ipex", "on")}


def test_a_wrong_or_failed_cell_is_never_best_nor_on_the_front_nor_in_an_effect(tmp_path: Path, show: Show) -> None:
    rows = matrix()
    rows[0] = replace(rows[0], is_baseline=True)
    wrong = replace(compared_cell(90, 1e-4, allocator="jemalloc", graph="compile"), quality="rel_l2 0.3 is over 0.0001")
    failed = replace(
        compared_cell(91, 1e-4, allocator="tcmalloc", graph="compile"), status="FAILED", failure="crash", metrics={}
    )
    put(tmp_path, "a", [*rows, wrong, failed])
    data = as_json(show, "--best-under", "1")
    (group,) = data["groups"]
    assert [cell["cell_id"] for cell in group["cells"][-2:]] == [wrong.cell_id, failed.cell_id]
    for cell in group["cells"][-2:]:
        assert (cell["rank"], cell["speedup"], cell["on_front"], cell["is_best"]) == (None, None, False, False)
    assert not [effect for effect in data["effects"] if effect["value"] == "compile"]
    out = show("--top", "99", "--wide")
    assert re.search(r"jemalloc .* WRONG", out)
    assert re.search(r"tcmalloc .* FAILED", out)


def test_the_best_under_an_error_bound_is_the_fastest_that_keeps_it(tmp_path: Path, show: Show) -> None:
    rough, fine = compared_cell(1, 0.01, precision="int8"), compared_cell(2, 0.05, precision="bf16")
    unknown = compared_cell(3, 0.001, precision="fp16")
    rough.metrics["quality/max_abs_err"] = 0.1  # type: ignore[index]
    fine.metrics["quality/max_abs_err"] = 1e-3  # type: ignore[index]
    del unknown.metrics["quality/max_abs_err"]  # type: ignore[attr-defined]
    put(tmp_path, "a", [compared_cell(0, 0.1), rough, fine, unknown])
    for bound, best in (("1", rough), ("1e-3", fine)):
        (group,) = as_json(show, "--best-under", bound)["groups"]
        assert group["best"] == best.cell_id
    assert "best with max_abs_err of at most 0.001: precision=bf16, " in show("--best-under", "1e-3")
    assert "no right cell; the least is 1e-06" in show("--best-under", "1e-9")


def test_cells_of_other_work_are_ranked_apart_each_with_a_baseline_of_its_own(tmp_path: Path, show: Show) -> None:
    small, large = matrix(), [replace(row, cell_id=f"9{row.cell_id[1:]}") for row in matrix(batch_size="8")]
    put(tmp_path, "a", [*small, *(replace(row, is_baseline=False) for row in large)])
    data = as_json(show)
    assert [group["work"] for group in data["groups"]] == [{"batch_size": "2"}, {"batch_size": "8"}]
    assert [group["baseline"] for group in data["groups"]] == [small[0].cell_id, large[0].cell_id]
    # Each axis's pairs are of equal work, and work itself has no effect.
    assert {effect["axis"] for effect in data["effects"]} == set(LEVELS)
    assert next(e for e in data["effects"] if e["value"] == "on")["pairs"] == 24
    assert "Ranking of batch_size=8" in show()


def test_by_an_axis_ranks_its_values_apart(tmp_path: Path, show: Show) -> None:
    put(tmp_path, "a", matrix())
    data = as_json(show, "--by", "ipex", "--baseline", "ipex=off,allocator=jemalloc")
    assert [group["work"] for group in data["groups"]] == [{"ipex": "off"}, {"ipex": "on"}]
    for group in data["groups"]:
        (base,) = (cell for cell in group["cells"] if cell["is_baseline"])
        assert (base["labels"]["allocator"], len(group["cells"])) == ("jemalloc", 12)


def with_contaminated(rows: list[CellRow], number: int) -> list[CellRow]:
    """The cells, one of them with 2 contaminated rounds."""
    figures = {**rows[number].metrics, "contamination/rounds": 2.0}
    found = replace(rows[number], metrics=figures, contamination="other processes took 48 % of a core")
    return [*rows[:number], found, *rows[number + 1 :]]


@pytest.mark.parametrize(("number", "untrusted"), [(0, 24), (5, 1)], ids=["baseline", "another cell"])
def test_a_comparison_with_a_contaminated_cell_says_so_first(
    tmp_path: Path, show: Show, number: int, untrusted: int
) -> None:
    rows = with_contaminated(matrix(), number)
    put(tmp_path, "a", rows)
    disturbed = "2 of 120 rounds were disturbed (other processes took 48 % of a core)"
    said = (
        f"This comparison can't be trusted: {disturbed}."
        if number == 0
        else f"{disturbed}: what is said of one cell can't be trusted."
    )
    assert said in " ".join(show().partition("Ranking")[0].split())
    assert said in show("--format", "md")
    data = as_json(show)
    assert data["warning"] == said
    cells = {cell["cell_id"]: cell for cell in data["groups"][0]["cells"]}
    assert cells[rows[number].cell_id]["contaminated_rounds"] == 2
    assert sum(cell["difference"] == "can't be trusted" for cell in cells.values()) == untrusted
    lines = list(csv.DictReader(io.StringIO(show("--format", "csv"))))
    assert sorted(line["contaminated_rounds"] for line in lines) == ["0"] * 23 + ["2"]


def test_all_formats_say_the_same(tmp_path: Path, show: Show) -> None:
    put(tmp_path, "a", matrix())
    (group,) = as_json(show)["groups"]
    lines = list(csv.DictReader(io.StringIO(show("--format", "csv"))))
    assert [line["cell_id"] for line in lines] == [cell["cell_id"] for cell in group["cells"]]
    assert [float(line["speedup"]) for line in lines] == [cell["speedup"] for cell in group["cells"]]
    assert lines[0]["allocator"] == "tcmalloc"
    text = show("--format", "md", "--top", "99")
    tables = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", text, re.M)]
    assert len(tables) == 3
    for lines_of in tables:
        assert len({line.count("|") for line in lines_of}) == 1
    assert len(tables[0]) == 2 + len(group["cells"])
    assert tables[0][2].startswith("| tcmalloc | on |")
    table = show()
    assert all(title in table for title in ("Ranking", "What each axis does", "Largest interactions"))


def test_tails_and_intervals_are_in_the_data_and_a_missing_p99_says_what_it_needs(tmp_path: Path, show: Show) -> None:
    tail = {
        "latency/p90_ms": 60.0,
        "latency/p99_ms": 70.0,
        "latency/p99_ci95_low_ms": 65.0,
        "latency/p99_ci95_high_ms": float("inf"),
        "throughput/ci95_low_samples_per_s": 30.0,
    }
    quick = compared_cell(1, 0.05, ipex="on")
    put(tmp_path, "a", [compared_cell(0, 0.1), replace(quick, metrics={**quick.metrics, **tail})])
    (group,) = as_json(show)["groups"]
    names = ("p90_ms", "p99_ms", "p99_ms_low", "p99_ms_high", "samples_per_s_low")
    assert [group["cells"][0][name] for name in names] == [60.0, 70.0, 65.0, None, 30.0]
    assert [group["cells"][1][name] for name in names] == [None] * 5
    first, second = csv.DictReader(io.StringIO(show("--format", "csv")))
    assert [first[name] for name in names] == ["60.0", "70.0", "65.0", "", "30.0"]
    assert [second[name] for name in names] == [""] * 5
    for text in (show("--wide"), show("--format", "md")):
        ranking = text.partition("What each axis does")[0]
        assert "p99 ms" in ranking
        assert "needs 200 latencies" in ranking


def test_top_limits_the_rows_and_says_how_many_are_left(tmp_path: Path, show: Show) -> None:
    put(tmp_path, "a", matrix())
    assert "22 more rows: --top 24 shows them" in show("--top", "2")


def test_one_round_has_no_interval_and_says_what_would_give_one(tmp_path: Path, show: Show) -> None:
    put(tmp_path, "a", [compared_cell(0, 0.1, rounds=1), compared_cell(1, 0.05, rounds=1, ipex="on")])
    out = show()
    assert ONE_ROUND in out
    assert "one pair each" in out
    assert "95 % interval   difference" not in out.partition("What each axis does")[0]


def test_two_rounds_far_apart_still_make_json() -> None:
    far = replace(compared_cell(1, 0.05, ipex="on"), medians_s=(1e-300, 1e300))
    found = comparison.compare(Cells([compared_cell(0, 0.1, rounds=2), far], [HERE]), {}, (), None, None)
    (group,) = json.loads(json.dumps(as_data(found), allow_nan=False))["groups"]
    assert group["cells"][0]["speedup_high"] is None


def test_several_sweeps_are_compared_by_names_beginnings_or_all(tmp_path: Path, show: Show) -> None:
    put(tmp_path, "20260101-a", [compared_cell(0, 0.1), compared_cell(1, 0.05, ipex="on")])
    put(tmp_path, "20260102-b", [replace(compared_cell(2, 0.02, allocator="tcmalloc"), is_baseline=False)])
    assert as_json(show)["sweeps"] == ["20260102-b"]
    for words in (["20260101", "20260102"], ["all"], ["20260101-a", "20260102-b", "20260101"]):
        data = as_json(show, *words)
        assert data["sweeps"] == ["20260101-a", "20260102-b"]
        (group,) = data["groups"]
        assert [cell["sweep"] for cell in group["cells"]] == ["20260102-b", "20260101-a", "20260101-a"]


@pytest.mark.parametrize("other", [0, 50])
def test_the_same_cell_of_two_sweeps_is_shown_twice_with_its_sweep(tmp_path: Path, show: Show, other: int) -> None:
    # Equal ids, and ids of another version of the runner.
    for name, number in (("a", 0), ("b", other)):
        put(tmp_path, name, [compared_cell(number, 0.1), compared_cell(number + 1, 0.05, ipex="on")])
    data = as_json(show, "all")
    assert data["distinguishing_axes"] == ["ipex", "sweep"]
    assert len(data["groups"][0]["cells"]) == 4
    assert [effect["pairs"] for effect in data["effects"]] == [1]


def test_twins_do_equal_work_and_a_sweep_from_before_there_were_any_is_compared(tmp_path: Path, show: Show) -> None:
    old = [compared_cell(0, 0.1), compared_cell(1, 0.05, ipex="on")]
    for row in old:
        del row.axes["twin"]  # type: ignore[attr-defined]
    put(tmp_path, "a", old)
    put(
        tmp_path,
        "b",
        [compared_cell(2, 0.1, graph="torchscript"), compared_cell(3, 0.1, twin="a"), compared_cell(4, 0.1, twin="b")],
    )
    assert as_json(show, "a")["distinguishing_axes"] == ["ipex"]
    data = as_json(show, "all")
    assert data["distinguishing_axes"] == ["ipex", "graph", "twin"]
    (group,) = data["groups"]
    assert {cell["labels"]["twin"] for cell in group["cells"]} == {"-", "a", "b"}


OTHER_TORCH = replace(HERE, versions={**HERE.versions, "torch": "2.9.0"})
OTHER_SEED = {**CELL.settings, "seed": "7"}
OTHER_ENV = {**CELL.settings, "allocator.env": "MALLOC_CONF=b:2"}


@pytest.mark.parametrize(
    ("origin", "settings", "sentence", "allow"),
    [
        (replace(HERE, host_id="there"), CELL.settings, "host_id here (a) and there (b)", "host"),
        (
            replace(HERE, state={"governor": "powersave"}),
            CELL.settings,
            "governor performance (a) and powersave (b)",
            "host",
        ),
        (
            replace(HERE, state={**HERE.state, "nice": "5"}),
            CELL.settings,
            "nice - (a) and 5 (b)",
            "host",
        ),
        (OTHER_TORCH, CELL.settings, "torch 2.8.0 (a) and 2.9.0 (b)", "versions"),
        (HERE, OTHER_SEED, "seed 0 (a) and 7 (b)", "settings"),
        (HERE, OTHER_ENV, "allocator.env of jemalloc MALLOC_CONF=a:1 (a) and MALLOC_CONF=b:2 (b)", "settings"),
        (OTHER_TORCH, OTHER_SEED, "torch 2.8.0 (a) and 2.9.0 (b); seed 0 (a) and 7 (b)", "versions,settings"),
    ],
)
def test_sweeps_that_differ_in_more_than_axes_are_refused_by_name_unless_allowed(
    tmp_path: Path, show: Show, origin: Origin, settings: dict[str, str], sentence: str, allow: str
) -> None:
    put(tmp_path, "a", [compared_cell(0, 0.1), compared_cell(1, 0.05, ipex="on")])
    put(
        tmp_path,
        "b",
        [
            replace(compared_cell(2, 0.2), settings=settings),
            replace(compared_cell(3, 0.1, ipex="on"), settings=settings),
        ],
        origin,
    )
    with pytest.raises(RunnerError) as refused:
        show("all")
    assert sentence in str(refused.value)
    assert str(refused.value).endswith(f"--allow {allow}")
    data = as_json(show, "all", "--allow", allow)
    # What differs tells cells apart, so that no pair mixes it.
    assert set(data["distinguishing_axes"]) > {"ipex"}
    assert next(e for e in data["effects"] if e["axis"] == "ipex")["pairs"] == 2


def test_a_sweep_behind_a_server_differs_from_one_in_a_loop_by_its_axes_alone(tmp_path: Path, show: Show) -> None:
    loop = dict.fromkeys(("iterations", "min_time_s", "max_time_s", "target_ci_pct"), "null")
    served = {**CELL.settings, **loop, "scenario.requests": "40"}
    put(tmp_path, "a", [compared_cell(0, 0.1)])
    put(tmp_path, "b", [replace(compared_cell(1, 0.3, scenario="torchserve"), settings=served)])
    assert as_json(show, "all")["distinguishing_axes"] == ["scenario"]


def test_versions_of_what_no_step_runs_may_differ(tmp_path: Path, show: Show) -> None:
    put(tmp_path, "a", [compared_cell(0, 0.1)])
    put(tmp_path, "b", [compared_cell(1, 0.1, ipex="on")], replace(HERE, versions={**HERE.versions, "mlflow": "9"}))
    assert as_json(show, "all")["sweeps"] == ["a", "b"]


def test_an_axis_that_goes_with_an_allowed_difference_has_no_pairs(tmp_path: Path, show: Show) -> None:
    put(tmp_path, "a", [compared_cell(0, 0.1)])
    put(tmp_path, "b", [compared_cell(1, 0.05, ipex="on")], OTHER_TORCH)
    assert as_json(show, "all", "--allow", "versions")["effects"] == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nope",), "nope: there is no such sweep in "),
        (("2026",), "2026: means several sweeps"),
        (("--baseline", "ipx=off"), "'ipx' is not an axis; the axes are model"),
        (("--baseline", "ipex"), "it must be axis=value"),
        (("--baseline", "ipex=maybe"), "no cell that was measured with a right output has it; choose another, such as"),
        (("--by", "ipx"), "'ipx' is not an axis"),
        (("--allow", "everything"), "'everything' is not something that may differ"),
        (("--top", "0"), "at least 1"),
    ],
)
def test_what_can_not_be_understood_is_refused(
    tmp_path: Path, show: Show, words: tuple[str, ...], sentence: str
) -> None:
    put(tmp_path, "20260101-a", matrix())
    put(tmp_path, "20260102-b", matrix())
    with pytest.raises(RunnerError) as refused:
        show(*words)
    assert sentence in str(refused.value)


def test_without_a_sweep_the_next_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="run one first"):
        compare.main(["--mlruns", str(tmp_path)])


def test_the_command_is_one_of_the_runners_and_a_refusal_is_one_line_with_status_2(tmp_path: Path) -> None:
    put(tmp_path, "a", matrix())
    said = ask("compare", "--mlruns", str(tmp_path))
    assert (said.status, said.err) == (0, "")
    assert "What each axis does" in said.out
    refused = ask("compare", "nope", "--mlruns", str(tmp_path))
    assert (refused.status, refused.out) == (2, "")
    assert refused.err.startswith("runner: nope: there is no such sweep in ")
    assert refused.err.count("\n") == 1


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=3, max_size=3), max_size=30),
    st.sampled_from([1.0, 1e12]),
)
def test_the_pareto_front_is_that_of_a_search_of_all_pairs(points: list[list[int]], scale: float) -> None:
    costs = np.array(points, dtype=np.float64).reshape(len(points), 3) * [1.0, scale, 1.0]
    expected = [
        i
        for i, mine in enumerate(costs)
        if not any((other <= mine).all() and (other < mine).any() for j, other in enumerate(costs) if j != i)
    ]
    assert pareto_front.pareto(costs).tolist() == expected


def test_a_cell_that_lacks_a_figure_of_the_front_is_not_on_it() -> None:
    rows = [compared_cell(0, 0.1), compared_cell(1, 0.05, ipex="on")]
    del rows[1].metrics["memory/rss_peak_mb"]  # type: ignore[attr-defined]
    (group,) = comparison.compare(Cells([replace(row, sweep="") for row in rows], [HERE]), {}).groups
    assert {row.cell.cell_id: row.on_front for row in group.rows} == {rows[0].cell_id: True, rows[1].cell_id: False}


def test_two_thousand_cells_take_less_than_two_seconds_of_cpu_time(tmp_path: Path, show: Show) -> None:
    write_sweep(2_000, tmp_path)
    started = process_time()
    out = show()
    assert process_time() - started < 2
    assert "allocator=tcmalloc  ipex=on" in out


def test_rankings_fit_the_terminal_unless_all_columns_are_wanted(tmp_path: Path, show: Show) -> None:
    rows = matrix()
    put(tmp_path, "a", [replace(rows[0], is_baseline=True), *rows[1:]])
    fitting, wide = (show("--top", "99", *words).partition("What each axis does")[0] for words in ((), ("--wide",)))
    table = fitting.partition("Ranking")[2].partition("front *")[0]  # the sentences below it are not broken in a pipe
    assert max(map(len, table.splitlines())) <= 80
    assert "RSS MB" in wide
    assert "RSS MB" not in fitting
    for word in ("speed-", "difference", "front", "baseline"):
        assert word in table


def test_sweeps_before_and_after_an_upgrade_are_compared_by_their_torch_and_all_that_came_with_it_is_in_a_legend(
    tmp_path: Path, show: Show, capsys: pytest.CaptureFixture[str]
) -> None:
    after = replace(HERE, versions={**HERE.versions, "torch": "2.9.0", "torchvision": "0.24.0"})
    put(tmp_path, "a", [compared_cell(0, 0.1)])
    put(tmp_path, "b", [compared_cell(0, 0.2)], after)
    data = as_json(show, "all", "--allow", "versions")
    assert data["distinguishing_axes"] == ["torch"]
    assert [(effect["axis"], effect["value"]) for effect in data["effects"]] == [("torch", "bundled 2.9.0")]
    printed = " ".join(show("all", "--allow", "versions").split())
    assert "bundled 2.9.0 is the torch of sweep b, with torchvision 0.24.0" in printed
    assert "torch=bundled 2.9.0 against torch=bundled 2.8.0, fastest against fastest, tiny batch 2: fp32 " in printed
