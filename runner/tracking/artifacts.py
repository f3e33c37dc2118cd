"""Which files of a job's folder are uploaded: regular files only. This module opens nothing but captured tables.

Links are left out. A model's code can leave any link in the folder, and the file that it leads to may be private.
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


def own_files(folder: Path) -> list[Path]:
    """The regular files of a folder that are not hidden, sorted by name."""
    return sorted(
        path for path in folder.iterdir() if path.is_file() and not path.is_symlink() and not path.name.startswith(".")
    )


def top_files(job: Path) -> list[Path]:
    """The files that stand at the top of a cell's artifacts; those of a later job replace those of an earlier one."""
    return [file for file in own_files(job) if file.name in _TOP]


def capture_files(job: Path) -> Iterator[tuple[Path, dict[str, list[Any]]]]:
    """Each file in the captures' folders, with its columns if it is one of our tables and with none otherwise."""
    captures = {path for path in job.iterdir() if path.is_dir() and not path.is_symlink()} - set(attempt_folders(job))
    for capture in sorted(captures):
        for file in own_files(capture):
            table: dict[str, list[Any]] = {}
            with suppress(FormatError):
                table = read_table(file) if file.name in TABLES else {}
            yield file, table
