"""What a sweep writes down about itself, before MLflow hears of it: MLflow can be filled again from these files.

sweep.json says how the sweep was started, a cell.json what each cell is and what its results depend on, end.json how
it all ended. With the outcome of every job (runner.results.outcome) nothing that MLflow holds is without its file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from runner.config import names
from runner.protocol import stored
from runner.protocol.errors import RunnerError
from runner.protocol.stored import Figure, FormatError, write_json

SWEEP_FILE, CELL_FILE, END_FILE = "sweep.json", "cell.json", "end.json"
# History: 1 = first version; 2 = distinguishing_axes, working_directory, identity.
FORMAT = 2

# In a sweep's folder until MLflow has all of it.
OPEN_FILE = ".open"


@dataclass(frozen=True)
class SweepEntry:
    """sweep.json: how a sweep was started."""

    sweep_id: str
    experiment: str
    command: str
    """The line that a user would repeat."""
    host_id: str
    commit: str
    """Git's; says so where there is none."""
    is_dirty: bool
    distinguishing_axes: Sequence[str]
    """The keys that tell its cells apart."""
    arguments: Sequence[str]
    """Of the command line, without ``python -m runner``."""
    working_directory: str
    """Working directory: relative paths among the arguments are below it."""
    experiments: str
    """RUNNER_EXPERIMENTS as it was: the folders of the user's own, those of --config-dir among them."""
    runner: str
    """The process that runs it: see execute.Process."""
    format: int = FORMAT


@dataclass(frozen=True)
class CellEntry:
    """cell.json: what a cell is, and what its results depend on."""

    cell_id: str
    key: str
    """Of matrix.Cell."""
    axes: Mapping[str, str]
    settings: Mapping[str, str]
    command: str
    """The line that runs it alone."""
    identity: Mapping[str, str]
    """See runner.sweep.identity."""
    format: int = FORMAT


@dataclass(frozen=True)
class End:
    """end.json: how a sweep ended. One that was killed has none."""

    status: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """sweep/* and noise/* metrics of the sweep as a whole."""
    causes: Mapping[str, str] = field(default_factory=dict)
    """cell_id -> main cause of its distance from the baseline."""
    format: int = FORMAT


Entry = TypeVar("Entry", SweepEntry, CellEntry, End)


def _entry(kind: type[Entry], file: Path) -> Entry:
    try:
        return stored.read(kind, file, FORMAT)
    except FormatError as error:
        raise FormatError(f"{error}; start the sweep again") from error


def read_sweep(sweep: Path) -> SweepEntry:
    """How the sweep in this folder was started.

    Raises:
        RunnerError: sweep.json is missing, torn, of another version, or has names that MLflow would misread.
    """
    entry = _entry(SweepEntry, sweep / SWEEP_FILE)
    for name in (entry.sweep_id, entry.host_id, *entry.experiment.split("/")):
        names.check_name(f"{sweep / SWEEP_FILE}: name", name)
    return entry


def read_cell(sweep: Path, cell_id: str) -> CellEntry:
    """What a cell is.

    Raises:
        RunnerError: cell.json is missing, torn, of another version or of another cell.
    """
    file = sweep / "cells" / cell_id / CELL_FILE
    entry = _entry(CellEntry, file)
    names.check_name(f"{file}: cell_id", entry.cell_id)
    if entry.cell_id != cell_id:
        raise FormatError(f"{file} can't be read: it is of another cell; start the sweep again")
    return entry


def read_cells(sweep: Path) -> list[CellEntry]:
    """Every cell that a sweep has written down; those that can't be read are left out."""
    found = []
    for file in sorted((sweep / "cells").glob(f"*/{CELL_FILE}")):
        try:
            found.append(read_cell(sweep, file.parent.name))
        except RunnerError:
            continue
    return found


def read_end(sweep: Path) -> End | None:
    """How it ended; None of a sweep that runs, was killed, or whose end.json can't be read."""
    try:
        return _entry(End, sweep / END_FILE)
    except RunnerError:
        return None


def begin(sweep: Path, entry: SweepEntry) -> None:
    """Leave sweep.json; from here on the sweep is open."""
    (sweep / END_FILE).unlink(missing_ok=True)
    (sweep / OPEN_FILE).touch()
    write_json(sweep / SWEEP_FILE, entry)


def add_cell(sweep: Path, entry: CellEntry) -> None:
    """Leave a cell.json, before the cell's first job."""
    folder = sweep / "cells" / entry.cell_id
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CELL_FILE, entry)


def end(sweep: Path, how: End) -> None:
    """Leave end.json."""
    write_json(sweep / END_FILE, how)


def recorded(sweep: Path) -> None:
    """MLflow has all of it."""
    (sweep / OPEN_FILE).unlink(missing_ok=True)
