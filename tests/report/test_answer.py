"""The answer above every ranking: what was measured first, then the conclusion in plain words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from runner.analysis import cause
from runner.analysis.ranking import Row
from runner.analysis.wording import ratio
from runner.protocol.verdicts import Status
from runner.report.answer import answer, measured
from runner.results import circumstances
from runner.results.circumstances import Circumstances
from runner.results.outcome import CellRecord
from tests.builders import axes, cell, contaminated, noisy_record, ranked, record_of_medians

WORK = {
    "model": "resnet50",
    "batch_size": "32",
    "sequence_length": "none",
    "graph": "eager",
    "memory_format": "channels_first",
    "cores": "all",
    "openmp": "default",
}
HERE = Circumstances("AMD EPYC", 2, "2.8.0", "2026-11-25", 480.0)


def made(allocator: str, *medians_s: float, **change: str) -> CellRecord:
    """A cell of real axes, whose unusual ones are in ``change``."""
    real = {**dict.fromkeys(axes(), "-"), **axes(), "instances": "1", "precision": "fp32", **WORK}
    real = {name: "-" if value == "x" else value for name, value in real.items()}
    return replace(record_of_medians(allocator, *medians_s), axes={**real, "allocator": allocator, **change})


def rows_of(*records: CellRecord, distinguishing: tuple[str, ...] = ("allocator", "ipex")) -> list[Row]:
    return list(ranked(records, records[0].cell_id, distinguishing).rows)


SLOW = made("ptmalloc", 0.0200, 0.0201, 0.0199)
FAST = made("tcmalloc", 0.0100, 0.0101, 0.0099, ipex="on")


def test_what_was_measured_is_one_line_without_what_the_table_shows() -> None:
    expected = "resnet50, batch 32, fp32, eager, channels_first · AMD EPYC, 2 cores · torch 2.8.0 · 2026-11-25 · 8 min"
    assert measured(rows_of(SLOW, FAST), HERE) == expected
    mixed = made("tcmalloc", 0.01, precision="bf16", cores="1")
    said = measured(rows_of(SLOW, mixed), HERE)
    assert said.startswith("resnet50, batch 32, eager, channels_first, ipex=off · AMD EPYC · torch")


def test_an_unusual_value_that_all_cells_have_is_said_and_a_usual_one_is_not() -> None:
    unusual = [made(name, 0.02, openmp="intel", cores="1") for name in ("ptmalloc", "tcmalloc")]
    said = measured(rows_of(*unusual), HERE)
    assert "intel" in said
    assert "AMD EPYC, 1 core ·" in said
    assert "default" not in measured(rows_of(SLOW, FAST), HERE)


def test_the_runner_s_own_torch_is_named_only_if_every_cell_ran_on_it() -> None:
    of_own = [made(name, 0.02, torch="own") for name in ("ptmalloc", "tcmalloc")]
    assert "torch 2.8.0" not in measured(rows_of(*of_own), HERE)
    assert "own" in measured(rows_of(*of_own), HERE)
    assert "torch 2.8.0" not in measured(rows_of(SLOW, made("tcmalloc", 0.01, torch="own")), HERE)


def test_what_is_not_known_is_left_out_of_the_line() -> None:
    assert measured(rows_of(SLOW, FAST)) == "resnet50, batch 32, fp32, eager, channels_first"
    assert measured([], HERE) == "AMD EPYC · torch 2.8.0 · 2026-11-25 · 8 min"


def test_the_conclusion_follows_and_as_markdown_it_is_bold_below_what_was_measured() -> None:
    said = answer(rows_of(SLOW, FAST), ("allocator", "ipex"), HERE)
    assert said.sentence.startswith(
        "Fastest: tcmalloc with IPEX, 10 ms, 2.00x the baseline (ptmalloc without IPEX, 20 ms). The difference is real"
    )
    paragraphs = said.markdown.split("\n\n")
    assert paragraphs[0] == said.measured
    assert paragraphs[1] == f"**{said.sentence}**"


def test_disturbed_rounds_come_before_the_conclusion() -> None:
    said = answer(rows_of(contaminated(SLOW, 0), FAST), ("allocator", "ipex"))
    assert said.warning.startswith("This comparison can't be trusted: 1 of 6 rounds was disturbed")
    assert said.markdown.index(said.warning[:20]) < said.markdown.index("Fastest")


def test_a_cell_that_the_user_interrupted_is_not_counted_as_failed() -> None:
    stopped = noisy_record("jemalloc", failure="interrupted")
    stopped = replace(stopped, outcomes=[replace(one, status=Status.KILLED) for one in stopped.outcomes])
    broken = noisy_record("mimalloc", failure="asked for mimalloc")
    rows = ranked([noisy_record("ptmalloc", 20.0, 20.1), stopped, broken], "ptmalloc-off-tiny").rows
    assert answer(rows, ("allocator",)).remarks == ("1 of 3 cells failed.", "1 of 3 cells was interrupted.")


@pytest.mark.parametrize(("value", "text"), [(1.08, "1.08x"), (0.1, "0.10x"), (0.0028, "0.0028x"), (123.4, "123.40x")])
def test_a_speed_up_is_never_nothing(value: float, text: str) -> None:
    assert ratio(value) == text


def test_the_main_cause_is_a_sentence_for_somebody_who_does_not_know_onednn() -> None:
    slow = cell(2942.0, compute=1000.0, reorder=100.0, other=50.0)
    fast = cell(2713.0, compute=1042.0, reorder=100.0, other=50.0)
    assert cause.sentence(slow, fast) == (
        "Mostly, work outside oneDNN (batch norm, copies and the like) takes 271 ms less per iteration; everything "
        "else together takes 42 ms more."
    )
    slow = cell(20.0, compute=10.0, reorder=8.0, other=0.0, reorders=3.0)
    fast = cell(12.0, compute=10.0, reorder=0.0, other=0.0, reorders=0.0)
    assert "takes 8 ms less per iteration (reorders per iteration 3 -> 0)" in cause.sentence(slow, fast)
    assert cause.sentence(slow, fast).endswith("everything else together takes as long as before.")
    assert cause.sentence(cell(10.0), cell(10.1)) == ""


def test_circumstances_are_read_from_a_sweep_s_files(tmp_path: Path) -> None:
    folder = tmp_path / "20261125-185334-1732"
    folder.mkdir()
    cpus = [{"cpu": n, "core": n % 4, "socket": 0, "node": n // 2 % 2} for n in range(8)]
    host = {"cpu_model": "AMD EPYC 7763 64-Core Processor", "cpus": cpus, "cpus_allowed": "0-2,4-7"}
    (folder / "host.json").write_text(json.dumps({**host, "versions": {"torch": "2.8.0"}}))
    found = circumstances.read(folder, [SLOW, FAST])
    assert found == Circumstances("AMD EPYC 7763", 2, "2.8.0", "2026-11-25", 12.0)
    assert circumstances.read(tmp_path) == Circumstances()
