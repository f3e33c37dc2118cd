"""Which files of a job's folder are shown to others: regular ones of its own. Pure.

What a link leads to is not the job's, and may be nobody's business: a model's code can leave any link in the folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.capture.tables import TABLES, read_table
from runner.protocol.stored import FormatError
from runner.results.outcome import attempt_folders

_TOP = ("evidence.json", "config.yaml")


def files(folder: Path) -> list[Path]:
    """In the order of their names, without those that are hidden."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    )


def top(job: Path) -> list[Path]:
    """Those that stand at the top of a cell's artifacts, of the last job that left them."""
    return [file for file in files(job) if file.name in _TOP]


def of_captures(job: Path) -> Iterator[tuple[Path, dict[str, list[Any]]]]:
    """Each file in the captures' folders with its columns where it is a table of ours, else with nothing."""
    captures = {path for path in job.iterdir() if path.is_dir() and not path.is_symlink()} - set(attempt_folders(job))
    for capture in sorted(captures):
        for file in files(capture):
            table: dict[str, list[Any]] = {}
            with suppress(FormatError):
                table = read_table(file) if file.name in TABLES else {}
            yield file, table
