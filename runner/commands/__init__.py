"""The commands, one file per command. Words that do not begin with the name of one describe a sweep."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command of the command line."""

    module: str
    """The module of this folder whose main() takes the words after the command's name."""
    summary: str
    """One sentence that says what it does."""


COMMANDS: Mapping[str, Command] = {
    "compare": Command("compare", "Rank the cells of one or more sweeps, and show what each axis does."),
    "explain": Command("explain", "Show why one cell is faster than another, from what was captured of both."),
    "resume": Command("resume", "Go on with a sweep that was interrupted or killed."),
    "import": Command("import_", "Fill MLflow again from the folders that sweeps left."),
    "doctor": Command("doctor", "Show what this machine can run, what is missing, and the line that installs it."),
    "ui": Command("ui", "Show the results in MLflow, on this machine only, until Ctrl-C."),
}


def run(words: Sequence[str]) -> int:
    """Run the command that the first word names, or a sweep; returns the exit status."""
    command = COMMANDS.get(words[0]) if words else None
    if command is None:
        from runner.commands import sweep

        return sweep.main(words)
    module = importlib.import_module(f"{__name__}.{command.module}")
    return int(module.main(list(words[1:])))
