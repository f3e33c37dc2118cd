"""What is printed when no words are given, and the versions of what measures."""

from __future__ import annotations

import importlib.metadata
import platform
import textwrap

from runner import __version__
from runner.commands import COMMANDS

_EXAMPLES = """\
runner benchmarks PyTorch inference on this machine's CPUs: it measures every combination that you name, checks that
each really ran as asked, and says which is fastest, whether the difference is real, and why.

    python -m runner -m allocator=ptmalloc,jemalloc ipex=off,on   measure four combinations for ResNet-50
    python -m runner explain baseline fastest                     say why the fastest is faster
    python -m runner model=resnet50                               measure a single one
"""
# What a result depends on, and where results are kept.
_DISTRIBUTIONS = ("torch", "intel-extension-for-pytorch", "mlflow")


def text() -> str:
    """Three examples, and every command with its sentence."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(
        textwrap.fill(
            f"{name:{width}}  {command.summary}",
            width=118,
            initial_indent="    ",
            subsequent_indent=" " * (width + 6),
        )
        for name, command in COMMANDS.items()
    )
    return (
        f"{_EXAMPLES}\nCommands (python -m runner COMMAND --help explains each):\n\n{commands}\n\n"
        "python -m runner --help explains every axis, setting and option of a sweep."
    )


def versions() -> str:
    """The runner's version, and those of what it measures with, without importing any of it."""
    return "\n".join(
        [
            f"runner {__version__}",
            *(f"{name} {_version(name)}" for name in _DISTRIBUTIONS),
            f"Python {platform.python_version()}",
        ]
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "is not installed"
