"""The tables that captures leave: how they are written and read again.

A table is JSON as MLflow keeps it (``columns``, ``data``); its first column is the key, its second the value that is
compared. oneDNN's trace, which has a row per primitive, is CSV.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.capture import kernel_tables
from runner.protocol import stored
from runner.protocol.stored import FormatError, write_json

Columns = Mapping[str, Sequence[Any]]

# Names of the tables that captures leave in their folders.
TABLES = ("by_primitive.json", "by_op.json", "by_operator.json", "by_kernel.json")
# Of one primitive: see stored.Duration.
_MOST_S = 1e9


@dataclass(frozen=True)
class _Table:
    """What a table's file holds, as MLflow requires it."""

    columns: list[str]
    data: list[list[Any]]


def write_table(file: Path, columns: Columns, work: Mapping[str, str] | None = None) -> None:
    """Columns of equal length as a JSON table.

    Args:
        file: where it is written.
        columns: column -> its values.
        work: axis -> value, for the axes that say what was worked on: each is a column, the last ones, so that a table
            says by itself what it is of.
    """
    file.parent.mkdir(exist_ok=True)
    work = work or {}
    rows = [[*row, *work.values()] for row in zip(*columns.values(), strict=True)]
    write_json(file, {"columns": [*columns, *work], "data": rows})


def read_trace(file: Path) -> list[dict[str, str]]:
    """The rows of onednn/trace.csv, column -> text; none when there is no such file.

    Raises:
        FormatError: it can't be read.
    """
    if not file.exists():
        return []
    text = stored.read_text(file)
    if not text.endswith("\n"):
        raise FormatError(f"{file} can't be read: its last line is cut off")
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        for row in rows:
            whole = None not in row and None not in row.values() and set(row) >= kernel_tables.OF_SHAPES
            if not whole or not 0 <= float(row["seconds"]) < _MOST_S:
                raise FormatError(f"{file} can't be read: its row {','.join(map(str, row.values()))[:80]!r} is torn")
    except (csv.Error, ValueError) as error:
        raise FormatError(f"{file} can't be read: {error}") from error
    return rows


def read_table(file: Path) -> dict[str, list[Any]]:
    """The columns that write_table() wrote; empty when there is no such file.

    Raises:
        FormatError: it can't be read.
    """
    if not file.exists():
        return {}
    table = stored.typed(_Table, stored.read_json(file), file)
    torn = f"{file} can't be read: it is not a table of names and figures"
    if len(set(table.columns)) != len(table.columns) or len(table.columns) < 2:
        raise FormatError(torn)
    for row in table.data:
        if len(row) != len(table.columns) or type(row[0]) is not str or type(row[1]) not in (int, float):
            raise FormatError(torn)
    return {name: [row[i] for row in table.data] for i, name in enumerate(table.columns)}
