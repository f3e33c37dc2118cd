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
    options: tuple[str, ...] = ()
    """Its options, for completion: a press of the Tab key can't wait for the import of its parser."""
    takes: tuple[str, ...] = ()
    """What its arguments may be: ``sweep``, ``cell``, ``setting``, or the very words."""


COMMANDS: Mapping[str, Command] = {
    "compare": Command(
        "compare",
        "Rank the cells of one or more sweeps, and show what each axis does.",
        ("--baseline", "--by", "--best-under", "--p99-under", "--allow", "--format", "--wide", "--top", "--mlruns"),
        ("sweep", "all"),
    ),
    "explain": Command(
        "explain",
        "Show why one cell is faster than another, from what was captured of both.",
        ("--sweep", "--allow", "--format", "--top", "--mlruns"),
        ("cell",),
    ),
    "list": Command(
        "list_",
        "List the sweeps, with what was measured and what won; or the experiments, models, allocators, ...",
        ("--format", "--top", "--mlruns"),
        ("sweeps", "experiments", "models", "allocators", "captures", "axes"),
    ),
    "show": Command(
        "show",
        "Show the ranking of a sweep again, or one cell with its evidence, command and files.",
        ("--format", "--wide", "--mlruns"),
        ("sweep", "cell"),
    ),
    "resume": Command(
        "resume",
        "Continue a sweep that was interrupted or killed. Finished rounds are kept.",
        ("--mlruns",),
        ("sweep", "setting"),
    ),
    "delete": Command(
        "delete",
        "Delete sweeps: their folders, and their runs in MLflow.",
        ("--yes", "--tracking-uri", "--mlruns"),
        ("sweep", "all"),
    ),
    "import": Command(
        "import_", "Fill MLflow again from the folders that sweeps left.", ("--tracking-uri", "--mlruns")
    ),
    "torch": Command(
        "torch",
        "Make, list and remove the environments of other torch builds.",
        ("--again",),
        ("add", "list", "remove"),
    ),
    "fleet": Command(
        "fleet",
        "Measure a matrix on several hosts, a sweep on each, by Slurm, Ray or on this machine, and compare them.",
        ("--mlruns",),
        ("status", "wait", "cancel", "resume", "setting"),
    ),
    "pull": Command(
        "pull",
        "Fetch sweeps that other hosts recorded in an MLflow server: their folders are made again.",
        ("--tracking-uri", "--mlruns"),
        ("sweep",),
    ),
    "peak": Command(
        "peak",
        "Measure what this host can do at most, once: rankings then say how far each cell is from it.",
        ("--torch", "--cores", "--node", "--quick", "--mlruns"),
    ),
    "doctor": Command(
        "doctor",
        "Show what this machine can run, what is missing, and the line that installs it.",
        ("--format", "--json"),
    ),
    "ui": Command(
        "ui", "Show the results in MLflow, on this machine only, until Ctrl-C.", ("--port", "--open", "--mlruns")
    ),
    "completion": Command(
        "completion",
        "Print the script that makes the Tab key complete the words of runner.",
        ("--line",),
        ("bash", "zsh"),
    ),
}


def run(words: Sequence[str]) -> int:
    """Run the command that the first word names, or a sweep; returns the exit status."""
    words = _asking_for_help(words)
    if not words or words in (["-m"], ["--multirun"], ["--version"]):
        from runner.commands import welcome

        print(welcome.versions() if words == ["--version"] else welcome.text())
        return 0
    command = COMMANDS.get(words[0])
    if command is None:
        from runner.commands import sweep

        return sweep.main(words)
    module = importlib.import_module(f"{__name__}.{command.module}")
    # The results folder is spelled in the same two ways everywhere.
    spelled = [f"--{word}" if word.startswith("mlruns=") else word for word in words[1:]]
    return int(module.main(spelled))


def _asking_for_help(words: Sequence[str]) -> list[str]:
    """The words, with ``help COMMAND`` spelled as ``COMMAND --help``."""
    if words[:1] != ["help"]:
        return list(words)
    return [word for word in words[1:2] if word in COMMANDS] + ["--help"]
