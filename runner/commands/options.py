"""How the commands' parsers are made, and the options that several commands have."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from runner import commands
from runner.analysis.comparability import HOST, SETTINGS, VERSIONS
from runner.commands.spelling import near
from runner.protocol.errors import RunnerError

KINDS = (HOST, VERSIONS, SETTINGS)


def make_parser(command: str, more: str = "") -> argparse.ArgumentParser:
    """The parser of a command: its summary above the arguments, ``more`` below them."""
    summary = commands.COMMANDS[command].summary
    return _Parser(prog=f"python -m runner {command}", description=summary, epilog=more)


class _Parser(argparse.ArgumentParser):
    """A parser that answers a slip in one sentence, with what was meant."""

    def error(self, message: str) -> NoReturn:
        command = self.prog.rpartition(" ")[2]
        unknown = re.match(r"unrecognized arguments: (?P<word>[^\s=]+)", message)
        choice = re.match(r"argument (?P<option>[\w-]+): invalid choice: '(?P<word>[^']*)'", message)
        if unknown:
            options = [name for action in self._actions for name in action.option_strings]
            problem = f"{unknown['word']}: there is no such option{near(unknown['word'], options)}"
            if not unknown["word"].startswith("-"):
                problem = f"{unknown['word']}: that is one word too many"
        elif choice:
            action = next(each for each in self._actions if choice["option"] in (*each.option_strings, each.metavar))
            choices = [str(each) for each in action.choices or ()]
            problem = f"{choice['option']} {choice['word']}: choose one of {', '.join(choices)}"
        else:
            problem = message
        between = " " if unknown or choice else ": "
        raise RunnerError(f"{command}{between}{problem}; see {self.prog} --help")


def add_mlruns(parser: argparse.ArgumentParser) -> None:
    """The option that says where the results are."""
    parser.add_argument(
        "--mlruns",
        metavar="DIR",
        default="mlruns",
        help="look for the results in this folder (default: %(default)s); mlruns=DIR is the same",
    )


def add_top(parser: argparse.ArgumentParser, rows: int) -> None:
    """The option that cuts tables off."""
    parser.add_argument(
        "--top", metavar="N", type=int, default=rows, help="show this many rows of each table (default: %(default)s)"
    )


def add_format(parser: argparse.ArgumentParser, *more: str) -> None:
    """The option that chooses how to print: for people, for GitHub, for programs.

    Args:
        more: the formats that only this command has.
    """
    parser.add_argument(
        "--format",
        choices=("text", "md", "json", *more),
        default="text",
        help="print the result in this format (default: %(default)s)",
    )


def add_allow(parser: argparse.ArgumentParser) -> None:
    """The option that names the kinds of differences to allow, see `allowed`."""
    kinds = ", ".join(KINDS)
    parser.add_argument("--allow", metavar="KIND,...", help=f"compare cells although these differ: {kinds}")


def allowed(text: str | None) -> list[str]:
    """The kinds of differences that ``--allow`` lets through.

    Raises:
        RunnerError: a kind is unknown.
    """
    return words(text, KINDS, "--allow", "something that may differ; choose among")


def words(text: str | None, choices: Sequence[str], option: str, wanted: str) -> list[str]:
    """The comma-separated words of an option.

    Raises:
        RunnerError: one of them is not among the choices.
    """
    words = text.split(",") if text else []
    for word in words:
        if word not in choices:
            raise RunnerError(f"{option} {text}: {word!r} is not {wanted} {', '.join(choices)}")
    return words
