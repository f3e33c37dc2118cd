"""list, show and delete: what they say of stored sweeps, and what they leave."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.commands import delete, list_, show
from runner.machine import host
from runner.machine.processes import Process
from runner.protocol.errors import RunnerError
from runner.protocol.stored import write_json
from runner.protocol.verdicts import Status
from runner.results import ledger, sweeps
from runner.results.outcome import OUTCOME_FILE, job_folder
from tests.builders import NO_REORDERS, ONEDNN_FIGURES, compared_cell, store_cell, store_compared
from tests.commands.test_compare import HERE

NAME, INTERRUPTED = "20260101-120000-abcd", "20260102-120000-beef"


def entry(name: str, **changes: Any) -> ledger.SweepEntry:
    known = ledger.SweepEntry(
        sweep_id=name,
        experiment="adhoc",
        command="python -m runner -m allocator=ptmalloc,tcmalloc",
        host_id=str(host.fingerprint()["host_id"]),
        commit="0" * 40,
        is_dirty=False,
        distinguishing_axes=["allocator"],
        arguments=[],
        working_directory="/",
        experiments="",
        runner="0.0",
    )
    return replace(known, **changes)


@pytest.fixture
def mlruns(tmp_path: Path) -> Path:
    """A finished sweep of two cells, and a newer one whose only job the user interrupted."""
    sweep = tmp_path / "sweeps" / NAME
    store_cell(sweep, "ptmalloc", 20, ONEDNN_FIGURES)
    store_cell(sweep, "tcmalloc", 12, {**ONEDNN_FIGURES, **NO_REORDERS})
    write_json(sweep / "host.json", {"host_id": "here"})
    ledger.begin(sweep, entry(NAME))
    ledger.end(sweep, ledger.End(Status.FINISHED))
    interrupted = tmp_path / "sweeps" / INTERRUPTED
    job = job_folder(interrupted, "ptmalloc", 0)
    job.mkdir(parents=True)
    of = json.loads((job_folder(sweep, "ptmalloc", 0) / OUTCOME_FILE).read_text())
    killed = {**of, "status": "KILLED", "failure": "interrupted"}
    write_json(job / OUTCOME_FILE, killed)
    ledger.begin(interrupted, entry(INTERRUPTED))
    ledger.end(interrupted, ledger.End(Status.KILLED))
    return tmp_path


def said(command: Any, capsys: pytest.CaptureFixture[str], mlruns: Path, *words: str) -> str:
    assert command.main([*words, "--mlruns", str(mlruns)]) == 0
    return capsys.readouterr().out


def test_a_sweep_that_was_interrupted_before_a_result_is_not_the_newest(mlruns: Path) -> None:
    assert sweeps.find(None, mlruns).name == NAME
    assert sweeps.find(None, mlruns, has_results=False).name == INTERRUPTED
    assert sweeps.find("20260102", mlruns).name == INTERRUPTED


def test_sweeps_are_listed_newest_first_with_state_and_winner(mlruns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest, older = json.loads(said(list_, capsys, mlruns, "--format", "json"))
    assert (newest["sweep"], newest["state"], newest["fastest"]) == (INTERRUPTED, "interrupted", "")
    assert (older["sweep"], older["date"], older["cells"]) == (NAME, "2026-01-01 12:00", 2)
    assert (older["state"], older["fastest"]) == ("finished", "tcmalloc")
    assert older["speedup"] == pytest.approx(20 / 12)
    assert older["measured"].endswith(": by allocator")
    text = said(list_, capsys, mlruns)
    assert text.index(INTERRUPTED) < text.index(NAME)
    assert "fastest: tcmalloc  12 ms  1.67x" in text
    assert f"| {NAME} |" in said(list_, capsys, mlruns, "--format", "md")
    assert "1 more rows: --top 2" in said(list_, capsys, mlruns, "--top", "1")


def test_a_running_sweep_is_listed_as_running_and_not_deleted(mlruns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger.begin(mlruns / "sweeps" / NAME, entry(NAME, runner=str(Process.this())))
    assert f"{NAME}  2026-01-01 12:00  running, 2 cells" in said(list_, capsys, mlruns)
    with pytest.raises(RunnerError, match="it is still running; stop it first"):
        delete.main([NAME, "--yes", "--mlruns", str(mlruns)])
    assert (mlruns / "sweeps" / NAME).is_dir()


def test_one_that_may_be_running_on_another_host_is_not_deleted(mlruns: Path) -> None:
    ledger.begin(mlruns / "sweeps" / NAME, entry(NAME, host_id="there"))
    with pytest.raises(RunnerError, match="it may still be running on host there"):
        delete.main([NAME, "--yes", "--mlruns", str(mlruns)])


def test_without_a_terminal_to_ask_on_nothing_is_deleted_unless_yes_is_said(
    mlruns: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(RunnerError, match=f"delete {NAME}: nobody can be asked here; add --yes"):
        delete.main([NAME, "--mlruns", str(mlruns)])
    assert f"{NAME} is deleted" in said(delete, capsys, mlruns, NAME, "--yes")
    assert [path.name for path in (mlruns / "sweeps").iterdir()] == [INTERRUPTED]


@pytest.mark.parametrize(("reply", "is_kept"), [("n", True), ("", True), ("y", False)])
def test_on_a_terminal_it_asks(mlruns: Path, monkeypatch: pytest.MonkeyPatch, reply: str, is_kept: bool) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: reply if NAME in question else "")
    assert delete.main([NAME, "--mlruns", str(mlruns)]) == int(is_kept)
    assert (mlruns / "sweeps" / NAME).exists() == is_kept


def test_show_prints_the_ranking_again(mlruns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), (NAME,), ("20260101",)):
        out = said(show, capsys, mlruns, *words)
        assert re.search(r"^tcmalloc +12 +1\.67x", out, re.M), out
        assert f"files   {mlruns}/sweeps/{NAME}" in out
    data = json.loads(said(show, capsys, mlruns, "--format", "json"))
    assert [cell["cell_id"] for cell in data["cells"]] == ["tcmalloc", "ptmalloc"]
    assert data["command"] == "python -m runner -m allocator=ptmalloc,tcmalloc"
    assert "| tcmalloc |" in said(show, capsys, mlruns, "--format", "md")


@pytest.mark.parametrize("words", ["fastest", "tcmalloc", "allocator=tcmalloc", f"{NAME}:fastest", "20260101:tcm"])
def test_show_prints_all_that_is_known_of_a_cell(mlruns: Path, capsys: pytest.CaptureFixture[str], words: str) -> None:
    out = said(show, capsys, mlruns, words)
    assert out.startswith(f"cell tcmalloc of sweep {NAME}\n")
    assert "1.67x the baseline" in out
    assert f"{mlruns}/sweeps/{NAME}/cells/tcmalloc/round-0" in out
    data = json.loads(said(show, capsys, mlruns, words, "--format", "json"))
    assert (data["axes"]["allocator"], data["result"]["p50_ms"]) == ("tcmalloc", 12)


def test_what_is_neither_a_sweep_nor_a_cell_is_refused(mlruns: Path) -> None:
    with pytest.raises(RunnerError, match="nosuch: there is no such sweep or cell; python -m runner list"):
        show.main(["nosuch", "--mlruns", str(mlruns)])
    with pytest.raises(RunnerError, match="'alocator' is not an axis"):
        show.main(["alocator=x", "--mlruns", str(mlruns)])


@pytest.mark.parametrize("what", ["experiments", "models", "allocators", "captures", "ipex"])
def test_lists_of_files_name_each_with_its_comment(capsys: pytest.CaptureFixture[str], what: str) -> None:
    assert list_.main([what, "--format", "json"]) == 0
    terms = json.loads(capsys.readouterr().out)
    assert len(terms) > 1
    assert all(term["name"] and term["explanation"] for term in terms)


def test_a_list_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(RunnerError, match=r"list swepes: choose one of sweeps, .*; did you mean sweeps"):
        list_.main(["swepes"])


def test_a_sweep_of_which_the_table_alone_is_left_is_listed_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store_compared(tmp_path, NAME, [compared_cell(0, 0.1), compared_cell(1, 0.05, ipex="on")], HERE)
    assert "fastest: with IPEX" in said(list_, capsys, tmp_path)
    assert "on" in said(show, capsys, tmp_path)


def test_a_damaged_sweep_takes_no_other_from_the_list(mlruns: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (mlruns / "sweeps" / NAME / "cells.parquet").write_bytes(b"PAR1")
    lines = json.loads(said(list_, capsys, mlruns, "--format", "json"))
    assert [line["state"] for line in lines] == ["interrupted", "damaged"]
