"""What a sweep writes down about itself before anything goes to MLflow, which can be filled again from these files.

sweep.json says how the sweep was started, each cell.json what a cell is and what its results depend on, and end.json
how the sweep ended. Together with the outcome of every job (runner.results.outcome) they hold all that MLflow holds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from runner.config import names
from runner.protocol import stored
from runner.protocol.errors import RunnerError
from runner.protocol.stored import Figure, FormatError, write_json
from runner.protocol.verdicts import Status

SWEEP_FILE, CELL_FILE, END_FILE = "sweep.json", "cell.json", "end.json"
# History: 1 = first version; 2 = distinguishing_axes, working_directory, identity.
FORMAT = 2

# This file is in a sweep's folder until MLflow has all of the sweep.
OPEN_FILE = ".open"

# More files than this are flushed to the disk at once, which takes a second and not minutes.
_MANY = 100


@dataclass(frozen=True)
class SweepEntry:
    """sweep.json: how a sweep was started."""

    sweep_id: str
    experiment: str
    command: str
    """The command line that a user would repeat."""
    host_id: str
    commit: str
    """The git commit of the code, or a text that says that it is not in a git checkout."""
    is_dirty: bool
    """Whether the checkout differed from that commit."""
    distinguishing_axes: Sequence[str]
    """The axes and settings that tell its cells apart."""
    arguments: Sequence[str]
    """The words of the command line, without ``python -m runner``."""
    working_directory: str
    """The directory that relative paths among the arguments start from."""
    experiments: str
    """The value of the environment variable RUNNER_EXPERIMENTS: the user's own folders, those of --config-dir among
    them."""
    runner: str
    """The process that runs the sweep: see runner.machine.processes.Process."""
    hostname: str = ""
    """The name of the host that measures it; empty in older files."""
    format: int = FORMAT


@dataclass(frozen=True)
class CellEntry:
    """cell.json: what a cell is, and what its results depend on."""

    cell_id: str
    key: str
    """The hash of the cell alone: see runner.protocol.cell.Cell.key."""
    axes: Mapping[str, str]
    settings: Mapping[str, str]
    command: str
    """The command line that runs this cell alone."""
    identity: Mapping[str, str]
    """What its results depend on besides the cell: see runner.sweep.identity."""
    format: int = FORMAT


@dataclass(frozen=True)
class CellEnd:
    """What the ranking at the end of a sweep says about one cell."""

    main_cause: str
    """The main cause of its distance from the baseline; ``-`` where there is nothing to explain."""
    difference: str = "-"
    """Whether the rounds show a difference from the baseline."""
    speedup: Figure | None = None
    """The baseline's median latency over the cell's; None where there is none."""
    description: str = ""
    """What was measured and what came out of it, as Markdown."""
    usd_per_million: Figure | None = None
    """What a million samples cost in USD; None where the host has no price."""
    roofline: Mapping[str, Figure] = field(default_factory=dict)
    """The roofline/* metrics that follow from the host's peaks; empty where those are not known."""


@dataclass(frozen=True)
class End:
    """end.json: how a sweep ended. A sweep that was killed has none."""

    status: Status
    """How the sweep ended."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """The sweep/* and noise/* metrics of the sweep as a whole."""
    cells: Mapping[str, CellEnd] = field(default_factory=dict)
    """Cell id -> what the ranking says about the cell."""
    description: str = ""
    """What was measured and what came out of it, as Markdown."""
    causes: Mapping[str, str] = field(default_factory=dict)
    """Cell id -> main cause, in files without ``cells``."""
    format: int = FORMAT


Entry = TypeVar("Entry", SweepEntry, CellEntry, End)


def _entry(kind: type[Entry], file: Path) -> Entry:
    try:
        return stored.read(kind, file, FORMAT)
    except FormatError as error:
        raise FormatError(f"{error}; start the sweep again") from error


def read_sweep(sweep: Path) -> SweepEntry:
    """Read how the sweep in this folder was started.

    Raises:
        RunnerError: sweep.json is missing, torn, of another version, or has names that MLflow would misread.
    """
    entry = _entry(SweepEntry, sweep / SWEEP_FILE)
    for name in (entry.sweep_id, entry.host_id, *entry.experiment.split("/")):
        names.check_name(f"{sweep / SWEEP_FILE}: name", name)
    return entry


def read_cell(sweep: Path, cell_id: str) -> CellEntry:
    """Read what a cell is.

    Raises:
        RunnerError: cell.json is missing, torn, of another version, or of another cell.
    """
    file = sweep / "cells" / cell_id / CELL_FILE
    entry = _entry(CellEntry, file)
    names.check_name(f"{file}: cell_id", entry.cell_id)
    if entry.cell_id != cell_id:
        raise FormatError(f"{file} can't be read: it belongs to another cell; start the sweep again")
    return entry


def read_cells(sweep: Path) -> list[CellEntry]:
    """Read every cell that a sweep has written down, leaving out those that can't be read."""
    cells = []
    for file in sorted((sweep / "cells").glob(f"*/{CELL_FILE}")):
        try:
            cells.append(read_cell(sweep, file.parent.name))
        except RunnerError:
            continue
    return cells


def read_end(sweep: Path) -> End | None:
    """Read how a sweep ended; None if it is running, was killed, or its end.json can't be read."""
    try:
        return _entry(End, sweep / END_FILE)
    except RunnerError:
        return None


def begin(sweep: Path, entry: SweepEntry) -> None:
    """Write sweep.json; from here on the sweep is open."""
    (sweep / END_FILE).unlink(missing_ok=True)
    (sweep / OPEN_FILE).touch()
    write_json(sweep / SWEEP_FILE, entry)


def add_cells(sweep: Path, entries: Sequence[CellEntry]) -> None:
    """Write the cell.json of each cell, before the first job."""
    are_many = len(entries) > _MANY
    for entry in entries:
        folder = sweep / "cells" / entry.cell_id
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CELL_FILE, entry, is_flushed=not are_many)
    if are_many:
        os.sync()


def end(sweep: Path, ending: End) -> None:
    """Write end.json."""
    write_json(sweep / END_FILE, ending)


def mark_recorded(sweep: Path) -> None:
    """Note that MLflow has all of the sweep."""
    (sweep / OPEN_FILE).unlink(missing_ok=True)
