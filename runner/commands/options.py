"""Options that several commands have."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from runner.analysis.mixing import HOST, SETTINGS, VERSIONS
from runner.protocol.errors import RunnerError

KINDS = (HOST, VERSIONS, SETTINGS)


def add_allow(parser: argparse.ArgumentParser) -> None:
    """The option that says what may differ, see `allowed`."""
    parser.add_argument("--allow", metavar="KIND,...", help=f"compare although these differ: {', '.join(KINDS)}")


def allowed(text: str | None) -> list[str]:
    """The kinds of differences that ``--allow`` lets through.

    Raises:
        RunnerError: one is unknown.
    """
    return words(text, KINDS, "--allow", "something that may differ; choose of")


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
