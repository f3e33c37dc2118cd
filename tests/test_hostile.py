"""Hostile words, names, files and links: what the user sees, and what they can't do."""

from __future__ import annotations

import csv
import io
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from runner.analysis.comparison import FIGURES
from runner.analysis.comparison import compare as compared
from runner.capture import collect, counters, itt, onednn, toplev
from runner.commands import selection, ui
from runner.config import limits, names
from runner.job import passes
from runner.machine import host, lock
from runner.machine.processes import Process
from runner.protocol.errors import RunnerError
from runner.report import escaping, sweep_end, terminal
from runner.report.data import comparison_csv
from runner.report.tables import markdown
from runner.results import cells, ledger
from runner.results.outcome import attempt_folders
from runner.results.sweeps import find_all
from runner.sweep import planning
from runner.tracking import artifacts, connection, pages
from runner.tracking.store import Store
from tests.builders import noisy_record, ranked
from tests.capture.test_itt import STEPS, B, E, recording
from tests.config.test_config import config
from tests.conftest import ROOT, ask
from tests.report.test_html import BASE, SHOWN, Page
from tests.test_fuzz import make_store

HOSTILE = "<script>alert(1)</script>|`x`[red]$\\frac$[/] \x1b[31m\u202e=1\"'&"


# -- names in reports -------------------------------------------------------------------------------------


def test_a_hostile_name_stays_text_in_every_file_of_a_report(tmp_path: Path) -> None:
    records = [BASE, noisy_record(HOSTILE, 10.0, 10.1), noisy_record("=cmd()", 3.0, 3.1)]
    said = sweep_end.leave(ranked(records, BASE.cell_id, SHOWN), tmp_path, "title")
    assert said == []
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert "red" not in page.tags
    assert text.count("<script") == 1  # ours
    assert not page.handlers
    assert "<script" not in (tmp_path / "report.md").read_text()
    assert {"comparison.png", "report.html", "report.md"} <= {file.name for file in tmp_path.iterdir()}
    with (tmp_path / "comparison.csv").open(newline="") as opened:
        values = [row["allocator"] for row in csv.DictReader(opened)]
    assert "'=cmd()" in values
    assert HOSTILE in values


def test_a_hostile_name_stays_text_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    records = [BASE, noisy_record(HOSTILE, 10.0, 10.1), noisy_record("jemalloc", failure=HOSTILE)]
    console = terminal.make_console()
    sweep_end.show(
        console, ranked(records, BASE.cell_id, SHOWN), [HOSTILE], Path("/x"), Path("/y"), {HOSTILE: "http://x"}
    )
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert out.count("[red]$\\frac$[/] \\x1b[31m\\u202e=1") >= 4
    assert names.visible(out) == out


def test_compare_keeps_a_hostile_name_as_text_in_markdown_and_csv(tmp_path: Path) -> None:
    make_store(tmp_path)
    sweep = tmp_path / "sweeps/20260102-b"
    for file in sweep.rglob("outcome.json"):
        text = file.read_text().replace('"allocator": "jemalloc"', '"allocator": "=<script>|x"')
        file.write_text(text)
    found = compared(cells.read([sweep], FIGURES), {}, (), None, None)
    table = [line for line in markdown(found, 9).splitlines() if line.startswith("|")]
    assert not any("<script" in line for line in table)
    assert any("=&lt;script>\\|x" in line for line in table)
    values = [row["allocator"] for row in csv.DictReader(io.StringIO(comparison_csv(found)))]
    assert "'=<script>|x" in values


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1+cmd", "@x", "\tx"])
def test_a_text_that_a_spreadsheet_would_compute_gets_an_apostrophe(value: str) -> None:
    assert escaping.cell(value) == f"'{value}"


@pytest.mark.parametrize("value", ["-", "", "a=1", "x", -1.5, 3])
def test_a_figure_and_a_plain_text_stay_as_they_are(value: object) -> None:
    assert escaping.cell(value) == value


def test_a_console_shows_what_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.make_console().print("a\x07\x1b]0;title\x07b\N{RIGHT-TO-LEFT OVERRIDE}", markup=False)
    assert capsys.readouterr().out == "a\\x07\\x1b]0;title\\x07b\\u202e\n"
    assert isinstance(terminal.make_console(), Console)


# -- words of a command line ------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["a\x00b", "a\nb", "\x1b[2J", "\u202egnp", "\u200b", "\udcff", "\u2028"])
def test_an_argument_with_characters_that_can_not_be_seen_is_refused_and_shown(word: str) -> None:
    with pytest.raises(RunnerError, match="argument 2 has characters that can't be seen") as found:
        names.check_words(["-m", word])
    assert str(found.value).isprintable()


def test_an_argument_of_any_length_is_refused_past_ten_thousand_characters() -> None:
    names.check_words(["x" * 10_000])
    with pytest.raises(RunnerError, match=r"argument 1 .* has more than 10000 characters") as found:
        names.check_words(["x" * 10_001])
    assert len(str(found.value)) < 200


@pytest.mark.parametrize("name", ["a", "resnet50", "bert-base.v2", "x" * 100, "_a+b"])
def test_a_plain_name_is_one(name: str) -> None:
    names.check_name("twin", name)


@pytest.mark.parametrize(
    "name", ["", "-a", ".", "..", "../../x", "a/b", "a b", "a'b", "<b>", "[red]", "$x$", "a|b", "é", "x" * 101, "a\n"]
)
def test_what_mlflow_a_path_or_a_page_would_misread_is_no_name(name: str) -> None:
    with pytest.raises(RunnerError, match="a name has letters, digits and"):
        names.check_name("twin", name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 2**40}, "seed=1099511627776: it must be at most 1000000000"),
        ({"rounds": 10**9}, "rounds=1000000000: choose 1 to 10000 .fresh processes per cell., auto or race"),
        ({"timeout_s": 1e300}, "timeout_s=1e.300: it must be at most"),
        ({"twin": "a b"}, "twin=a b: a name has letters"),
        ({"mlruns": "a?b"}, "mlruns=a.b: '.' in its path would be misread"),
        ({"mlruns": " "}, "mlruns= : it is empty"),
    ],
)
def test_a_setting_that_would_be_misread_or_never_end_is_refused(change: dict[str, Any], said: str) -> None:
    limits.check(config())
    with pytest.raises(RunnerError, match=said):
        limits.check(config(**change))


def test_values_are_looked_at_wherever_they_are() -> None:
    for value, said in (
        ({"a": ["x", "\x00"]}, r"a\[1\]="), ({"a": {"b\n": 1}}, "a="), ({"a": float("nan")}, "finite"),
        ({"a": 10**30}, "bits"), ({"a": "x" * 5000}, "5000 characters"), ({"a": b"x"}, "bytes"),
    ):  # fmt: skip
        with pytest.raises(RunnerError, match=said):
            names.check_values("", value)
    names.check_values("", {"a": [1, 2.5, "text", None, True]})


def test_a_matrix_of_too_many_cells_is_refused_before_any_is_composed(tmp_path: Path) -> None:
    choices = {"seed": [str(i) for i in range(200)], "twin": [str(i) for i in range(200)]}
    request = planning.SweepRequest(choices, (), (), tmp_path, "s", "adhoc", "")
    with pytest.raises(RunnerError, match=r"more than 10000 cells \(seed: 200, twin: 200\)"):
        planning.expand_matrix(request, lambda words: pytest.fail("composed"))


# -- paths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../..", "../../x", "/etc", ".", "20260101-a/../../x", ""])
def test_a_sweep_is_named_and_not_reached_by_a_path(name: str, tmp_path: Path) -> None:
    make_store(tmp_path)
    with pytest.raises(RunnerError, match=r"no such sweep|several sweeps"):
        find_all([name], tmp_path)
    with pytest.raises(RunnerError):
        selection.find(f"{name}:fastest", None, tmp_path)


def test_a_link_out_of_the_store_is_no_sweep(tmp_path: Path) -> None:
    make_store(tmp_path / "store")
    outside = tmp_path / "outside"
    (tmp_path / "store/sweeps/20260102-b").rename(outside)
    (tmp_path / "store/sweeps/20260102-b").symlink_to(outside)
    assert [path.name for path in find_all(["all"], tmp_path / "store")] == ["20260101-a"]


def test_what_a_link_leads_to_is_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    job = tmp_path / "job"
    (job / "itt").mkdir(parents=True)
    (job / "config.yaml").symlink_to(tmp_path / "secret")
    (job / "itt/by_op.json").symlink_to(tmp_path / "secret")
    (job / "linked").symlink_to(tmp_path)
    (job / "stdout.log").write_text("x")
    assert [file.name for file in artifacts.own_files(job)] == ["stdout.log"]
    assert list(artifacts.capture_files(job)) == []


def test_a_table_that_is_none_is_recorded_as_a_file(tmp_path: Path) -> None:
    (tmp_path / "itt").mkdir()
    (tmp_path / "itt/by_op.json").write_text("[")
    assert list(artifacts.capture_files(tmp_path)) == [(tmp_path / "itt/by_op.json", {})]


def test_a_folder_named_like_an_attempt_without_a_number_is_none(tmp_path: Path) -> None:
    for name in ("attempt-2", "attempt-10", "attempt-x", "attempt-"):
        (tmp_path / name).mkdir()
    assert [path.name for path in attempt_folders(tmp_path)] == ["attempt-2", "attempt-10"]


@pytest.mark.parametrize(
    ("field", "value"), [("sweep_id", "x' or 1=1"), ("experiment", "../../x"), ("host_id", "'"), ("experiment", "a//b")]
)
def test_a_sweep_whose_names_mlflow_would_misread_is_not_recorded(field: str, value: str, tmp_path: Path) -> None:
    make_store(tmp_path)
    sweep = tmp_path / "sweeps/20260101-a"
    file = sweep / ledger.SWEEP_FILE
    entry = ledger.read_sweep(sweep)
    ledger.begin(sweep, replace(entry, **{field: value}))  # type: ignore[arg-type]
    with pytest.raises(RunnerError, match=f"{file}: name="):
        ledger.read_sweep(sweep)


def test_a_store_whose_path_sqlite_would_misread_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=r"'\?' in its path would be misread"):
        Store(tmp_path / "a?mode=ro")


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "lock").symlink_to(victim)
    monkeypatch.setenv("RUNNER_LOCK", str(tmp_path / "lock"))
    with (
        pytest.raises(RunnerError, match="the host's measurement lock can't be opened"),
        lock.measuring("s", tmp_path, True, print),
    ):
        pass
    assert victim.read_text() == "precious"


def test_the_lock_s_holder_is_shown_without_what_a_terminal_would_obey(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text('{"sweep": "\\u001b[2J", "pid": 1, "mlruns": "/x", "since": "now"}')
    assert lock.holder(tmp_path / "lock") == "sweep '\\x1b[2J' (pid 1, in /x, since now)"


# -- the server -------------------------------------------------------------------------------------------


def test_the_server_listens_to_this_machine_alone_and_make_ui_starts_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int, str]] = []
    monkeypatch.setattr(pages, "serve", lambda *what: seen.append(what))
    monkeypatch.setattr(Store, "last_pages", lambda self: {})
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    ui.main(["--mlruns", str(tmp_path), "--port", str(port)])
    assert seen == [(f"sqlite:///{tmp_path / 'mlflow.db'}", port, "#/experiments")]
    assert connection.UI_HOST == "127.0.0.1"
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.partition("\nui:")[2].partition("\n\n")[0]
    assert recipe.splitlines()[1:] == ["\t$(PY) -m runner ui"]


@pytest.mark.parametrize("port", ["0", "-1", "65536", "99999999999"])
def test_a_port_that_is_none_is_refused(port: str, tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="a port is a number from 1 to 65535"):
        ui.main(["--port", port, "--mlruns", str(tmp_path)])


# -- logs and recordings that would take for ever, or lie -------------------------------------------------


def test_a_line_of_a_million_letters_on_stderr_is_looked_through_at_once() -> None:
    told = "Cannot access event server " * 40_000, "7 events not counted " * 40_000
    for text in ("x" * 1_000_000, "1" * 1_000_000, *told):
        with pytest.raises(toplev.Rejected) as found:
            toplev.read("", "", text, 1)
        assert len(str(found.value)) < 400


def test_a_stack_of_nothing_but_file_names_is_looked_through_at_once(tmp_path: Path) -> None:
    (tmp_path / "stderr.log").write_text("Timeout (\n (most recent call first):\n" + 'File "' * 150_000)
    assert passes._hang_location(tmp_path) == ""


def test_a_line_of_onednn_without_end_is_unparsed_and_so_is_a_time_without_bounds() -> None:
    line = "onednn_verbose,v1,primitive,exec,cpu,convolution,jit,fwd,src:f32::blocked:ab::f0,,,mb1,{}"
    head = "onednn_verbose,v1,primitive,info,template:operation,engine,primitive,implementation,prop_kind," + (
        "memory_descriptors,attributes,auxiliary,problem_desc,exec_time"
    )
    found = onednn.parse([head, line.format("1.5"), line.format("1e+999"), line.format("9" * 400), "x" * 40_000 + line])
    assert [p.seconds for p in found.primitives] == [0.0015]
    assert len(found.unparsed) == 3
    assert found.lines == 5


def test_a_primitive_whose_kind_could_name_no_metric_is_unparsed() -> None:
    lines = (ROOT / "tests/data/onednn-verbose/versions/onednn-3.9.1-plain.log").read_text().splitlines()
    whole = onednn.parse(lines)
    kind = whole.primitives[0].kind
    found = onednn.parse([line.replace(f",{kind},", ",<script>,") for line in lines])
    assert len(found.primitives) < len(whole.primitives)
    assert not any("<" in p.kind for p in found.primitives)


def test_a_count_that_no_counter_reaches_or_is_negative_has_no_figure() -> None:
    lines = ("1e300;;cycles;1;100.00;;", "-5;;branches;1;100.00;;", "7;;cache-misses;1;1e9;;", "3;;<b>;1;100;;")
    found = counters.parse("\n".join(lines))
    assert found.values == {}
    assert set(found.missing) == {"cycles", "branches", "cache-misses"}


def test_a_range_that_ends_before_it_begins_is_a_torn_recording() -> None:
    events = [(100, 0, B, 0), (50, 0, E, 0)]
    with pytest.raises(RunnerError, match="ends before it begins"):
        itt.read(recording((7, events)))
    assert itt.read(recording((7, STEPS))).steps


@pytest.mark.parametrize("text", ["0-99999999999", "5-1", "-3", "70000"])
def test_cpus_that_no_kernel_has_are_no_list(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a range of CPUs|invalid literal"):
        host.parse_cpu_list(text)


@pytest.mark.parametrize("text", ["².1", "1.²", "9" * 5000 + ".1", "1.1\n", "٣.٣"])
def test_a_text_with_other_digits_names_no_process(text: str) -> None:
    assert Process.of(text) == Process(0, 0)


def test_a_damaged_recording_becomes_the_tag_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def take() -> collect.Findings:
        itt.read(b"ITTC")
        return collect.Findings()

    found = collect.guarded("capture.itt", take)
    assert found.tags["capture.itt"].startswith("failed: the ITT recording is torn")
    assert capsys.readouterr().err == ""


# -- experiments ------------------------------------------------------------------------------------------

BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

EXPERIMENTS: dict[str, tuple[str | bytes, str]] = {
    "bomb": (BOMB, "it has more than 10000 values once its aliases are followed"),
    "circle": ("a: &a [*a]\n", "it nests more than 32 levels deep, or refers to itself"),
    "deep": ("a: " + "[" * 40 + "]" * 40, "it nests more than 32 levels deep"),
    "abyss": ("a: " + "[" * 3_000, "nests too deeply"),
    "twice": ("seed: 1\nseed: 2\n", "is not YAML at line 2, column 1: the key seed is there twice"),
    "tab": ("a:\n\tb: 1\n", "is not YAML at line 2"),
    "python": ("a: !!python/object/apply:os.system [id]\n", "could not determine a constructor for the tag"),
    "tag": ("a: " + "!" * 100_000, "tag.yaml is not YAML at line 1"),
    "number": ("seed: !!int x\n", "invalid literal for int"),
    "stamp": ("a: !!timestamp x\n", "stamp.yaml: "),
    "binary": ("a: !!binary aGk=\n", "a: a value of type bytes is neither text nor number"),
    "control": ('twin: "a\\x1b[31m"\n', "twin='a\\x1b[31m': it has characters that can't be seen"),
    "huge": ("# " + "x" * (1 << 18), "is larger than 0.25 MiB"),
    "long_number": (f"seed: {'9' * 5000}\n", "long_number.yaml: "),
    "latin": (b"twin: \xe9\n", "it is not UTF-8 at byte 6"),
    "header": ("# @package a b c\nseed: 1\n", "header.yaml: @package needs one name"),
    "half": ("seed: ${\n", "half.yaml: "),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_hostile_experiment_is_refused_in_a_sentence_that_names_it(name: str, tmp_path: Path) -> None:
    from tests.test_fuzz import plugin

    content, said = EXPERIMENTS[name]
    (tmp_path / f"{name}.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    source = plugin().Yaml12Source("test", f"yaml12://{tmp_path}")
    with pytest.raises(RunnerError) as found:
        source.load_config(f"{name}.yaml")
    assert said in str(found.value)
    assert f"{name}.yaml" in str(found.value)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 1000


def test_an_alias_and_a_text_of_several_lines_for_hydra_are_read(tmp_path: Path) -> None:
    from tests.test_fuzz import plugin

    (tmp_path / "x.yaml").write_text("a: &a {b: 1}\nc: *a\nhydra: {help: {header: 'x\n\n  y'}}\n")
    read = plugin().Yaml12Source("test", f"yaml12://{tmp_path}").load_config("x.yaml").config
    assert read.c.b == 1


def test_numbers_are_those_of_yaml_1_2_and_underscores(tmp_path: Path) -> None:
    from tests.test_fuzz import plugin

    numbers = {"017": 17, "0o17": 15, "0x1F": 31, "1_000": 1000, "-5": -5, "+5": 5, "1e3": 1000.0, ".5": 0.5}
    texts = ["1:30", "12:30:45", "0b11", "1_", "_1", "2024-01-01", "1.2.3", "0o8", "-0x1F"]
    lines = [f"n{number}: {text}\n" for number, text in enumerate([*numbers, *texts])]
    (tmp_path / "x.yaml").write_text("".join(lines))
    read = plugin().Yaml12Source("test", f"yaml12://{tmp_path}").load_config("x.yaml").config
    assert list(read.values()) == [*numbers.values(), *texts]


REFUSED = [
    ["twin='<script>'"],
    ["hydra.sweep.dir=/"],
    ["hydra.sweep.dir=../../x"],
    ["hydra.sweep.subdir=../../x"],
    ["hydra.job.chdir=true"],
    ["sweep.directory=/etc"],
    ["-m", "seed=range(0,10000000000)"],
    ["+experiment=../../../etc/passwd"],
    ["model._target_=a..b"],
    ["+allocator.env.a=1", "+allocator.env={a=b: 1}"],
    ["compare", "../../x"],
    ["compare", "--best-under", "nan"],
    ["explain", "a", "b", "--top", "-1"],
]


@pytest.mark.slow
@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_a_hostile_command_line_is_refused_in_one_sentence(words: list[str], tmp_path: Path) -> None:
    command = words[0] in ("compare", "explain")
    if command:
        make_store(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    ran = ask(*words, *(["--mlruns", str(tmp_path)] if command else [f"mlruns={tmp_path}"]))
    assert ran.status == 2, ran.out + ran.err
    assert ran.err.startswith("runner: ")
    assert ran.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_no_environment_has_is_refused() -> None:
    with pytest.raises(RunnerError, match="a=b is not a name for an environment variable"):
        names.check_variables("allocator.env", {"a=b": "1"})
