"""The command lines that a message about a sweep names: they work as they stand, wherever the results are."""

from __future__ import annotations

import shlex
from pathlib import Path

# The folder of results where no option names one.
DEFAULT = Path("mlruns")


def resume_line(sweep: Path) -> str:
    """The command line that goes on with a sweep; it names the results folder where that is not the default."""
    return f"python -m runner resume {sweep.name}{mlruns_option(sweep.parent.parent)}"


def mlruns_option(mlruns: Path) -> str:
    """The option that makes a command look in this folder of results, after a blank; empty for the default one."""
    folder = mlruns.resolve()
    if folder == DEFAULT.resolve():
        return ""
    near = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    return f" --mlruns {shlex.quote(str(near))}"
