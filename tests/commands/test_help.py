"""What the commands say of themselves, and the list of experiments."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
from pathlib import Path

import pytest

from runner import __version__, commands
from runner.config import choices
from tests.conftest import ROOT, ask, explained


class Parsed(Exception):  # noqa: N818  # ends a command where its arguments would be parsed
    """Carries the command's parser."""


@pytest.fixture
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """The parser that a command makes."""

    def stop(made: argparse.ArgumentParser, *_: object) -> None:
        raise Parsed(made)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_intermixed_args", stop)
    module = importlib.import_module(f"runner.commands.{commands.COMMANDS[request.param].module}")
    with pytest.raises(Parsed) as ended:
        module.main([])
    return ended.value.args[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("parser", commands.COMMANDS, indirect=True)
def test_each_argument_of_a_command_is_explained_in_plain_text(parser: argparse.ArgumentParser) -> None:
    assert "``" not in parser.format_help()
    assert parser.description
    assert parser.description.endswith(".")
    for action in parser._actions:
        assert action.help, action.dest
        assert not action.help.endswith("."), action.dest


@pytest.mark.parametrize("parser", commands.COMMANDS, indirect=True)
def test_arguments_take_words_in_capitals_or_a_choice(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if action.nargs != 0 and action.choices is None:
            assert isinstance(action.metavar, str), action.dest
            assert action.metavar == action.metavar.upper()


def test_every_file_of_the_room_that_has_a_parser_is_a_command() -> None:
    files = {file.stem for file in (ROOT / "runner/commands").glob("*.py") if "make_parser(" in file.read_text()}
    assert files - {"options"} | {"completion"} == {command.module for command in commands.COMMANDS.values()}


def test_the_version_is_that_of_the_runner() -> None:
    ran = ask("--version")
    assert ran.status == 0
    versions = dict(line.rsplit(" ", 1) for line in ran.out.splitlines())
    assert versions["runner"] == __version__
    assert {name: importlib.metadata.version(name) for name in ("torch", "mlflow")}.items() <= versions.items()


@pytest.mark.parametrize("words", [(), ("-m",), ("help",), ("help", "compare")])
def test_who_asks_for_nothing_or_for_help_is_told_what_there_is(words: tuple[str, ...]) -> None:
    ran = ask(*words)
    assert (ran.status, ran.err) == (0, "")
    assert "python -m runner" in ran.out
    assert all(f"    {command}" in ran.out for command in commands.COMMANDS) or words[:1] == ("help",)


@pytest.mark.parametrize("parser", commands.COMMANDS, indirect=True)
def test_completion_knows_each_option_of_a_command(
    parser: argparse.ArgumentParser, request: pytest.FixtureRequest
) -> None:
    options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    command = request.node.callspec.params["parser"]
    assert {"--help", *commands.COMMANDS[command].options} == options


@pytest.mark.parametrize("command", commands.COMMANDS)
def test_help_of_the_sweep_names_every_command(command: str) -> None:
    template = (ROOT / "conf/config.yaml").read_text()
    assert f"python -m runner {command}" in template


def test_help_lists_every_experiment_with_its_first_comment(tmp_path: Path) -> None:
    own = tmp_path / "experiment/mine"
    own.mkdir(parents=True)
    (own / "first.yaml").write_text("# @package _global_\n# What $HOME costs\nrounds: 1\n")
    ran = ask("--config-dir", str(tmp_path), "--help")
    assert ran.status == 0, ran.err
    terms = explained(ran.out)
    assert terms["mine/first"] == "What $HOME costs"
    for file in (ROOT / "experiments/experiment").glob("*.yaml"):
        comment = file.read_text().splitlines()[1].lstrip("# ")
        assert terms[file.stem] == comment


def test_an_experiment_of_an_earlier_folder_hides_the_later_one(tmp_path: Path) -> None:
    for folder, comment in (("mine", "# Mine"), ("theirs", "# Theirs"), ("silent", "rounds: 1\n# Too late")):
        (tmp_path / folder / "experiment").mkdir(parents=True)
        (tmp_path / folder / "experiment" / ("silent.yaml" if folder == "silent" else "a.yaml")).write_text(comment)
    listed = choices.list_experiments([tmp_path / name for name in ("mine", "theirs", "silent", "nothing")])
    assert [line.split() for line in listed.splitlines()] == [["a", "Mine"], ["silent"]]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("compare --fromat json", "compare --fromat: there is no such option; did you mean --format?"),
        ("list --format xml", "list --format xml: choose one of text, md, json"),
        ("show a b", "show b: that is one word too many"),
        ("delete", "delete: the following arguments are required: SWEEP"),
    ],
)
def test_a_slip_in_the_words_of_a_command_is_answered_in_one_sentence(words: str, sentence: str) -> None:
    ran = ask(*words.split())
    assert (ran.status, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert ran.err.startswith(f"runner: {sentence}")
