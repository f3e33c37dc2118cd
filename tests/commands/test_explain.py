"""explain: which cells are meant, what is refused, and what stands side by side."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from runner.analysis.ranking import rank_sweep
from runner.commands import explain
from runner.protocol.errors import RunnerError
from runner.protocol.stored import write_json
from runner.results.outcome import OUTCOME_FILE, RESULT_FILE, CellRecord, job_folder
from tests.builders import (
    NO_REORDERS,
    ONEDNN_FIGURES,
    compared_cell,
    contaminated,
    record_of_medians,
    store_cell,
    store_compared,
)
from tests.commands.test_compare import HERE


@pytest.fixture
def mlruns(tmp_path: Path) -> Path:
    sweep = tmp_path / "sweeps" / "20260101-000000-abcd"
    store_cell(sweep, "ptmalloc", 20, ONEDNN_FIGURES)
    store_cell(sweep, "tcmalloc", 12, {**ONEDNN_FIGURES, **NO_REORDERS})
    store_cell(sweep, "jemalloc", 30, ONEDNN_FIGURES, batch_size="8")
    write_json(sweep / "host.json", {"host_id": "here"})
    return tmp_path


def shown(mlruns: Path, *words: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert explain.main([*words, "--mlruns", str(mlruns)]) == 0
    return capsys.readouterr().out


def test_the_part_that_changed_is_first_with_what_was_counted_and_the_rest_is_left(
    mlruns: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shown(mlruns, "allocator=ptmalloc", "fastest", capsys=capsys)
    assert "20 -> 12 ms, -8 ms: 1.67x (one round" in out
    first = next(line for line in out.splitlines() if line.strip().startswith("reorders"))
    assert first.split()[:4] == ["reorders", "8", "0", "-8"]
    assert "reorders per iteration 3 -> 0" in first
    assert "left unexplained by what was counted: +0 ms" in out
    assert "aten::conv2d" in out


def test_json_holds_the_same(mlruns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data: dict[str, Any] = json.loads(shown(mlruns, "ptmalloc", "tcm", "--format", "json", capsys=capsys))
    assert data["change_ms"] == pytest.approx(-8)
    assert data["parts"][0]["words"] == "reorders per iteration 3 -> 0"
    assert data["unexplained_ms"] == pytest.approx(0, abs=1e-9)
    assert data["operators"][0] == {"name": "aten::conv2d", "before_ms": 18.0, "after_ms": 10.0, "made_of": ""}


def test_captures_that_others_disturbed_are_named_and_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweeps" / "20260101-000000-abcd"
    store_cell(sweep, "ptmalloc", 20, {**ONEDNN_FIGURES, "captures/drift_pct": 110.7})
    store_cell(sweep, "tcmalloc", 12, ONEDNN_FIGURES)
    write_json(sweep / "host.json", {"host_id": "here"})
    out = shown(tmp_path, "ptmalloc", "tcmalloc", capsys=capsys)
    assert "disturbed, not shown: ITT of A (iterations beside it, which nothing recorded, took 111 % longer" in out
    assert "ITT of B" not in out
    assert "aten::conv2d" not in out
    assert "run them with capture=" not in out


def store(sweep: Path, *records: CellRecord) -> None:
    """Leave the files of cells of several rounds in a sweep's folder."""
    for cell in records:
        for outcome in cell.outcomes:
            folder = job_folder(sweep, cell.cell_id, outcome.round)
            folder.mkdir(parents=True)
            write_json(folder / OUTCOME_FILE, outcome)
            write_json(folder / RESULT_FILE, cell.results[outcome.round, 0])
    write_json(sweep / "host.json", {"host_id": "here"})


def test_two_cells_of_a_sweep_are_judged_by_all_its_cells_as_its_ranking_judges_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A slow second round for all: two cells can't tell it from noise, five can.
    shift = (1.0, 1.2, 1.02)
    made = [
        record_of_medians(name, *(s * factor * wobble for factor, wobble in zip(shift, wobbles, strict=True)))
        for name, s, wobbles in [
            ("ptmalloc", 0.020, (1, 1.01, 1)), ("tcmalloc", 0.019, (1, 1, 1.012)), ("jemalloc", 0.03, (1.01, 1, 1)),
            ("fourth", 0.025, (1, 1.008, 1)), ("fifth", 0.04, (1, 1, 1.009)),
        ]
    ]  # fmt: skip
    store(tmp_path / "sweeps" / "20260101-000000-abcd", *made)
    explained = json.loads(shown(tmp_path, "ptmalloc", "tcmalloc", "--format", "json", capsys=capsys))
    ranking = rank_sweep(made, "ptmalloc", ["allocator"])
    expected = next(row for row in ranking.rows if row.cell.cell_id == "tcmalloc").verdict
    assert expected is not None
    assert expected.interval is not None
    assert explained["verdict"]["interval"] == pytest.approx(asdict(expected.interval))


def test_two_cells_of_which_one_is_contaminated_keep_their_interval_and_have_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = tmp_path / "sweeps" / "20260101-000000-abcd"
    cells = record_of_medians("ptmalloc", 0.020, 0.0201), contaminated(record_of_medians("tcmalloc", 0.010, 0.0101), 1)
    store(sweep, *cells)
    out = shown(tmp_path, "ptmalloc", "tcmalloc", capsys=capsys)
    assert out.startswith("This comparison can't be trusted: 1 of 4 rounds was disturbed (other processes took 48 %")
    assert "x, can't be trusted)" in next(line for line in out.splitlines() if "95 % interval" in line)
    data: dict[str, Any] = json.loads(shown(tmp_path, "ptmalloc", "tcmalloc", "--format", "json", capsys=capsys))
    assert data["verdict"]["answer"] == "can't be trusted"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("ptmalloc", "nope"), "nope: is not a measured cell"),
        (("batch_size=4", "tcmalloc"), "means several measured cells"),
        (("ipx=off", "tcmalloc"), "'ipx' is not an axis"),
        (("ptmalloc", "allocator=ptmalloc"), "are the same cell"),
        (("ptmalloc", "jemalloc"), "different work (batch_size 4 and 8)"),
        (("ptmalloc", "other:tcmalloc"), "other: there is no such sweep"),
        (("ptmalloc", "tcmalloc", "--sweep", "none"), "none: there is no such sweep"),
        (("ptmalloc", "tcmalloc", "--allow", "weather"), "'weather' is not something that may differ"),
    ],
)
def test_what_is_not_two_cells_of_equal_work_is_refused(mlruns: Path, words: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(RunnerError) as refused:
        explain.main([*words, "--mlruns", str(mlruns)])
    assert sentence in str(refused.value)


def add_sweep(mlruns: Path, name: str, ms: float, host: dict[str, Any]) -> None:
    """An older sweep with tcmalloc alone."""
    sweep = mlruns / "sweeps" / name
    store_cell(sweep, "tcmalloc", ms, ONEDNN_FIGURES)
    write_json(sweep / "host.json", host)


def test_the_same_cell_of_two_sweeps_is_told_apart_by_them(mlruns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_sweep(mlruns, "20250101-000000-0000", 15, {"host_id": "here"})
    out = shown(mlruns, "2025:tcmalloc", "tcmalloc", capsys=capsys)
    assert "p50 15 -> 12 ms, -3 ms: 1.25x" in out
    assert "A  20250101-000000-0000:  model=tiny  allocator=tcmalloc  ipex=off" in out
    assert "B  20260101-000000-abcd:  model=tiny  allocator=tcmalloc  ipex=off" in out
    assert "1.25x" in shown(mlruns, "tcmalloc", "2026:tcmalloc", "--sweep", "2025", capsys=capsys)


@pytest.mark.parametrize(
    ("kind", "host", "what"),
    [
        ("host", {"host_id": "there"}, "host_id there (20250101-000000-0000) and here"),
        ("host", {"host_id": "here", "governor": "powersave"}, "governor powersave"),
        ("versions", {"host_id": "here", "versions": {"torch": "2.7.0"}}, "torch 2.7.0"),
    ],
)
def test_cells_of_sweeps_that_differ_in_more_than_axes_are_refused_unless_allowed(
    mlruns: Path, capsys: pytest.CaptureFixture[str], kind: str, host: dict[str, Any], what: str
) -> None:
    add_sweep(mlruns, "20250101-000000-0000", 15, host)
    with pytest.raises(RunnerError) as refused:
        explain.main(["2025:tcmalloc", "ptmalloc", "--mlruns", str(mlruns)])
    assert what in str(refused.value)
    assert f"add --allow {kind}" in str(refused.value)
    assert "p50 15 -> 20 ms" in shown(mlruns, "2025:tcmalloc", "ptmalloc", "--allow", kind, capsys=capsys)


def test_other_cells_of_those_sweeps_may_have_been_measured_in_another_way(
    mlruns: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_sweep(mlruns, "20250101-000000-0000", 15, {"host_id": "here"})
    store_cell(mlruns / "sweeps" / "20250101-000000-0000", "mimalloc", 9, ONEDNN_FIGURES, settings={"warmup": "99"})
    assert "1.25x" in shown(mlruns, "2025:tcmalloc", "tcmalloc", capsys=capsys)
    with pytest.raises(RunnerError, match="warmup 99"):
        explain.main(["2025:mimalloc", "tcmalloc", "--mlruns", str(mlruns)])


TRACE = "step,copy,operation,primitive,implementation,post_ops,problem,seconds"


def test_shapes_stand_side_by_side_with_what_computed_them_largest_change_first(
    mlruns: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (
        "0,torch,exec,convolution,jit:avx2,,mb1_ic3,0.010",
        "0,torch,exec,reorder,jit:uni,,1x3,0.0015",
        "0,torch,exec,convolution,jit:avx2,,mb1_ic8,0.002",
    )
    after = (
        "0,torch,exec,convolution,brg:avx512_core,eltwise_relu,mb1_ic3,0.004",
        "0,torch,exec,convolution,jit:avx2,,mb1_ic8,0.0015",
        "0,torch,exec,convolution,jit:avx2,,mb1_ic8,0.0015",
    )
    for name, rows in (("ptmalloc", before), ("tcmalloc", after)):
        folder = job_folder(mlruns / "sweeps" / "20260101-000000-abcd", name, 0) / "onednn"
        folder.mkdir()
        (folder / "trace.csv").write_text("\n".join((TRACE, *rows, "")))
    out = shown(mlruns, "ptmalloc", "tcmalloc", capsys=capsys)
    table = [" ".join(line.split()) for line in out.partition("by shape")[2].splitlines()]
    assert table[2:5] == [
        "convolution mb1_ic3 10 4 -6 jit:avx2 -> brg:avx512_core (eltwise_relu)",
        "reorder 1x3 1.5 0 -1.5 jit:uni -> -, 1 -> 0 calls",
        "convolution mb1_ic8 2 3 +1 jit:avx2, 1 -> 2 calls",
    ]
    few = shown(mlruns, "ptmalloc", "tcmalloc", "--top", "1", capsys=capsys)
    assert "mb1_ic3" in few
    assert "mb1_ic8" not in few
    data = json.loads(shown(mlruns, "ptmalloc", "tcmalloc", "--format", "json", capsys=capsys))
    assert data["shapes"][0]["after_by"] == "brg:avx512_core (eltwise_relu)"
    assert len(data["shapes"]) == 3


def test_without_a_sweep_the_next_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="run one first"):
        explain.main(["a", "b", "--mlruns", str(tmp_path)])


def test_cells_from_before_there_were_twins_are_still_explained(
    mlruns: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in mlruns.rglob(OUTCOME_FILE):
        data = json.loads(file.read_text())
        del data["axes"]["twin"]
        write_json(file, data)
    assert "20 -> 12 ms" in shown(mlruns, "allocator=ptmalloc", "fastest", capsys=capsys)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), ("ptmalloc", "tcmalloc")),
        (("fastest",), ("ptmalloc", "tcmalloc")),
        (("baseline", "fastest"), ("ptmalloc", "tcmalloc")),
        (("fastest", "baseline"), ("tcmalloc", "ptmalloc")),
        (("ptmalloc", "jemalloc"), ("ptmalloc", "jemalloc")),
    ],
)
def test_cells_are_named_by_place_or_value_and_the_rest_is_as_in_the_baseline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], names: tuple[str, str]
) -> None:
    rows = [compared_cell(0, 0.020, allocator="ptmalloc", ipex="off")]
    rows += [compared_cell(1, 0.018, allocator="jemalloc", ipex="off")]
    rows += [
        compared_cell(2, 0.016, allocator="jemalloc", ipex="on"),
        compared_cell(3, 0.014, allocator="ptmalloc", ipex="on"),
    ]
    rows += [compared_cell(4, 0.012, allocator="tcmalloc", ipex="off")]
    rows = [replace(row, is_baseline=number == 0) for number, row in enumerate(rows)]
    store_compared(tmp_path, "20260101-000000-aaaa", rows, HERE)
    out = shown(tmp_path, *words, capsys=capsys)
    assert [f"{side}  allocator={name}" in out for side, name in zip("AB", names, strict=True)] == [True, True]
    assert ("as in the baseline: ipex=off" in out) == ("jemalloc" in words)
    data = json.loads(shown(tmp_path, *words, "--format", "json", capsys=capsys))
    assert data["before"] == f"allocator={names[0]}"
    assert data["conclusion"].startswith("B is ")


def test_where_the_baseline_is_the_fastest_the_next_cell_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [compared_cell(0, 0.010, allocator="ptmalloc"), compared_cell(1, 0.012, allocator="tcmalloc")]
    store_compared(tmp_path, "20260101-000000-aaaa", [*rows, compared_cell(2, 0.020, allocator="jemalloc")], HERE)
    for words in ((), ("baseline", "fastest")):
        out = shown(tmp_path, *words, capsys=capsys)
        assert "B  allocator=tcmalloc  (the next: the baseline is the fastest)" in out


def test_more_than_two_cells_are_refused(mlruns: Path) -> None:
    with pytest.raises(RunnerError, match="explain a b c: name two cells"):
        explain.main(["a", "b", "c", "--mlruns", str(mlruns)])


def test_the_end_says_in_plain_words_what_the_tables_say(mlruns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    end = shown(mlruns, "ptmalloc", "tcmalloc", capsys=capsys).rstrip().splitlines()[-1]
    assert end.startswith("B is 1.67x as fast as A, 8 ms less per iteration. One round can't tell whether that is real")
    assert "reorders" in end
    text = shown(mlruns, "ptmalloc", "tcmalloc", "--format", "md", capsys=capsys)
    assert f"**{end}**".replace("*", "") in text.replace("*", "")
    assert "| reorders | 8 | 0 | -8 | reorders per iteration 3 -> 0 |" in text
