"""Stored files are read as declared, or refused with the file, the place and the reason."""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from runner.analysis import noise
from runner.capture.tables import read_table, read_trace
from runner.protocol.jobfile import FORMAT
from runner.protocol.resultfile import CAPTURES_FILE, read_captures, read_result
from runner.protocol.stored import (
    Count,
    FormatError,
    Latency,
    VersionError,
    log_text,
    parse_json,
    read,
    read_bytes,
    read_gzip,
    write_json,
)
from runner.protocol.verdicts import Word
from runner.report.timeline import read as read_timeline
from runner.results import planfile
from runner.results.outcome import OUTCOME_FILE, RESULT_FILE, job_folder, read_cell, read_outcome
from tests.analysis.test_noise import kept
from tests.test_fuzz import RESULT, make_store


class Colour(Word):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    seconds: Latency = 1.0


@dataclass(frozen=True)
class Shape:
    name: str
    count: Count = 0
    samples: list[Latency] = field(default_factory=list)
    inner: Inner | None = None
    anything: Any = None
    colour: Colour | None = None
    word: Colour | str = Colour.RED
    setting: bool | int | str = 0
    format: int = 2


def refused(tmp_path: Path, content: str | bytes, kind: type = Shape) -> str:
    file = tmp_path / "x.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FormatError) as found:
        read(kind, file, 2)
    said = str(found.value)
    assert said.startswith(str(file))
    assert "\n" not in said
    return said.removeprefix(f"{file} ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"format": 2, "name": 3}', "can't be read: name is 3, not a text"),
        ('{"format": 2}', "can't be read: name is missing"),
        ('{"format": 2, "name": "a", "more": 1}', "can't be read: more is unknown"),
        ('{"format": 2, "name": "a", "count": true}', "can't be read: count is True, not a whole number"),
        ('{"format": 2, "name": "a", "count": -1}', "can't be read: count is -1, which is out of range"),
        ('{"format": 2, "name": "a", "samples": "abc"}', "can't be read: samples is 'abc', not a list"),
        ('{"format": 2, "name": "a", "samples": [1, "b"]}', "can't be read: samples[1] is 'b', not a number"),
        ('{"format": 2, "name": "a", "samples": [0]}', "can't be read: samples[0] is 0, which is out of range"),
        (
            '{"format": 2, "name": "a", "inner": {"seconds": -1}}',
            "can't be read: inner.seconds is -1, which is out of range",
        ),
        ('{"format": 2, "name": "a", "inner": []}', "can't be read: inner is [], not a table of names"),
        ('{"format": 2, "name": "a", "colour": "green"}', "can't be read: colour is 'green', not one of red, blue"),
        ('{"format": 2, "name": "a", "colour": ["red"]}', "can't be read: colour is ['red'], not one of red, blue"),
        ('{"format": 2, "name": "a", "word": 5}', "word is 5, not one of red, blue and not a text"),
        ('{"format": 2, "name": "a", "setting": 0.5}', "setting is 0.5, not true or false and not a whole"),
        ('{"format": 2, "name": "a", "samples": [NaN]}', "can't be read: NaN is not a number"),
        ('{"format": 2, "name": "a", "samples": [1e999]}', "can't be read: '1e999' is too large a number"),
        (f'{{"format": 2, "name": "a", "count": {"9" * 5000}}}', "is too large a number to compute with"),
        ('{"format": 2, "name": "a", "name": "b"}', "can't be read: it has 'name' twice"),
        ('{"format": 2, "name": "\\ud800"}', "can't be read: it has half of a character"),
        (f'{{"format": 2, "anything": {"[" * 100}{"]" * 100}}}', "it nests more than 64 levels deep"),
        ("[" * 100_000, "can't be read: it nests more than 64 levels deep"),
        ("[]", "can't be read: it is [], not a table of names"),
        ('{"format": 1}', "has format 1; this version reads format 2"),
        ('{"format": 2.0}', "has format 2.0; this version reads format 2"),
        (b"\xff{}", "can't be read: it is not UTF-8 at byte 0"),
        ("", "can't be read: Expecting value"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(tmp_path: Path, content: str | bytes, said: str) -> None:
    assert said in refused(tmp_path, content)


def test_what_fits_is_read_with_its_defaults_and_whole_numbers_count_as_numbers(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"format": 2, "name": "a", "samples": [1, 0.5], "inner": {}, "anything": [{}]}')
    assert read(Shape, tmp_path / "x.json", 2) == Shape("a", 0, [1.0, 0.5], Inner(1.0), [{}])


@pytest.mark.parametrize("value", [Colour.RED, "green"])
def test_a_word_of_a_closed_set_is_read_as_its_member_and_any_other_text_as_text(
    tmp_path: Path, value: Colour | str
) -> None:
    shape = Shape("a", colour=Colour.BLUE, word=value)
    write_json(tmp_path / "x.json", shape)
    assert json.loads((tmp_path / "x.json").read_text())["colour"] == "blue"
    again = read(Shape, tmp_path / "x.json", 2)
    assert again == shape
    assert isinstance(again.colour, Colour)
    assert type(again.word) is type(value)


@pytest.mark.parametrize("value", [True, 3, "auto"])
def test_a_value_of_several_types_keeps_its_own(tmp_path: Path, value: bool | int | str) -> None:
    write_json(tmp_path / "x.json", Shape("a", setting=value))
    again = read(Shape, tmp_path / "x.json", 2).setting
    assert (type(again), again) == (type(value), value)


def test_another_version_is_told_apart_from_damage(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"format": 1}')
    with pytest.raises(VersionError):
        read(Shape, tmp_path / "x.json", 2)


def test_an_emoji_in_escapes_is_a_character() -> None:
    assert parse_json(Path("x"), json.dumps("\N{PILE OF POO}")) == "\N{PILE OF POO}"


def test_a_file_past_the_limit_is_refused_and_not_read(tmp_path: Path) -> None:
    file = tmp_path / "huge.json"
    with file.open("wb") as out:
        out.truncate(1 << 40)  # a terabyte of holes
    with pytest.raises(FormatError, match="is larger than 256 MiB"):
        read_bytes(file)


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.gz"
    file.write_bytes(gzip.compress(bytes(2 << 20)))
    with pytest.raises(FormatError, match="holds more than 1 MiB"):
        read_gzip(file, 1 << 20)


def test_a_pipe_or_a_folder_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(FormatError):
            read_bytes(tmp_path / name)


def test_of_a_long_log_the_beginning_and_the_end_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "stderr.log"
    file.write_bytes(b"first\n" + b"x" * (5 << 20) + b"\nlast \xff\n")
    text = log_text(file)
    assert text.startswith("first\n")
    assert text.endswith("\nlast \N{REPLACEMENT CHARACTER}\n")
    assert len(text) < 3 << 20
    assert log_text(tmp_path / "none") == ""


# -- what each reader makes of it -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"latencies_s": "abc"},
        {"latencies_s": [0.1, -0.1]},
        {"latencies_s": [5e-324]},
        {"round": "x"},
        {"window": []},
        {"window": {**asdict(RESULT)["window"], "wall_s": 0}},
        {"window": {**asdict(RESULT)["window"], "surroundings": {"cpus": 1}}},
        {"phases_s": {"import": None}},
        {"onednn_step_s": {"torch": [0]}},
        {"evidence": {}},
        {"evidence": {**asdict(RESULT)["evidence"], "more": 1}},
        {"quality": {"comparable": True, "finite": True}},
        {"quality": {**asdict(RESULT)["quality"], "rel_l2": 1e200}},
    ],
)
def test_a_result_with_fields_of_other_types_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / RESULT_FILE).write_text(json.dumps({**asdict(RESULT), **change}))
    with pytest.raises(FormatError, match=next(iter(change))):
        read_result(tmp_path / RESULT_FILE)


def test_a_cell_whose_rounds_were_exchanged_or_differ_is_refused(tmp_path: Path) -> None:
    make_store(tmp_path)
    sweep = tmp_path / "sweeps/20260102-b"
    first, second = (job_folder(sweep, "ptmalloc", number) for number in (0, 1))
    kept = (first / OUTCOME_FILE).read_text()
    (first / OUTCOME_FILE).write_text((second / OUTCOME_FILE).read_text())
    with pytest.raises(
        FormatError, match=r"it belongs to round 1; python -m runner resume 20260102-b --mlruns .* measures"
    ):
        read_cell(sweep, "ptmalloc")
    (first / OUTCOME_FILE).write_text(kept.replace('"ipex": "off"', '"ipex": "on"'))
    with pytest.raises(FormatError, match="its axes are not those of the other rounds"):
        read_cell(sweep, "ptmalloc")
    (first / OUTCOME_FILE).write_text(kept.replace('"instances": "1"', '"instances": "many"'))
    with pytest.raises(FormatError, match=r"axes.instances is 'many', not a number of at least 1"):
        read_outcome(first / OUTCOME_FILE)
    (first / OUTCOME_FILE).write_text(kept)
    (first / RESULT_FILE).write_text((second / RESULT_FILE).read_text())
    with pytest.raises(FormatError, match="it belongs to round 1"):
        read_cell(sweep, "ptmalloc")


def test_captures_that_took_less_than_no_time_are_refused(tmp_path: Path) -> None:
    (tmp_path / CAPTURES_FILE).write_text(
        json.dumps({"format": FORMAT, "captures": [{"name": "itt", "step_s": [1], "wall_s": -1}]})
    )
    with pytest.raises(FormatError, match=r"captures\[0\]\.wall_s is -1"):
        read_captures(tmp_path / CAPTURES_FILE)


@pytest.mark.parametrize(
    "content",
    ["[]", '{"columns": ["a"], "data": [["x"]]}', '{"columns": ["a", "b"], "data": [["x"]]}',
     '{"columns": ["a", "b"], "data": [[["x"], 1]]}', '{"columns": ["a", "b"], "data": [["x", "1"]]}',
     '{"columns": ["a", "a"], "data": []}'],
)  # fmt: skip
def test_a_table_without_names_and_figures_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(FormatError, match=r"t\.json can't be read"):
        read_table(tmp_path / "t.json")


@pytest.mark.parametrize("row", ["1,2", "0,torch,exec,conv,jit,,mb1,nan", "0,torch,exec,conv,jit,,mb1,1,9", 'a,"b'])
def test_a_trace_with_a_torn_row_is_refused(tmp_path: Path, row: str) -> None:
    head = "step,copy,operation,primitive,implementation,post_ops,problem,seconds"
    (tmp_path / "trace.csv").write_text(f"{head}\n0,torch,exec,conv,jit,,mb1,1\n{row}")
    with pytest.raises(FormatError, match=r"trace\.csv can't be read"):
        read_trace(tmp_path / "trace.csv")


@pytest.mark.parametrize(
    "event",
    [{"ph": "X", "ts": 0, "dur": -1, "name": "a", "tid": 1}, {"ph": "X", "ts": "0", "dur": 1, "name": "a", "tid": 1},
     {"ph": "X", "dur": 1, "name": "a", "tid": 1}, {"ph": "X", "ts": 0, "dur": 1, "name": ["a"], "tid": 1}, 5],
)  # fmt: skip
def test_a_timeline_with_a_torn_event_is_refused(tmp_path: Path, event: object) -> None:
    (tmp_path / "t.json").write_text(json.dumps({"traceEvents": [event]}))
    with pytest.raises(FormatError, match=r"t\.json can't be read"):
        read_timeline(tmp_path / "t.json")


def test_plan_and_host_may_say_more_but_nothing_of_another_type(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text('{"host_id": "h", "cpus": [1], "versions": {"torch": null}}')
    assert planfile.read_host(tmp_path).host_id == "h"
    (tmp_path / "host.json").write_text('{"host_id": 7}')
    with pytest.raises(FormatError, match="host_id is 7, not a text"):
        planfile.read_host(tmp_path)
    (tmp_path / "plan.json").write_text('{"level": 5}')
    with pytest.raises(FormatError, match="level is 5, which is out of range"):
        planfile.read_plan(tmp_path)


@pytest.mark.parametrize("date", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "x"])
def test_a_noise_floor_of_a_day_that_never_was_is_passed_over(tmp_path: Path, date: str) -> None:
    folder = tmp_path / "sweeps/a"
    folder.mkdir(parents=True)
    (folder / noise.FILE).write_text(json.dumps({**asdict(kept()), "date": date}))
    found, notes = noise.newest(tmp_path, "here")
    assert found is None
    assert "a/noise.json is passed over" in notes[0]
