"""cells.parquet: a row a cell, all that comparing needs of a sweep in one file that is read in a moment.

Apart from outcome.py, whose files a job each are the record: this one is made from them at the end of a sweep, and
made again in memory for a sweep that has none (an older one, one that was killed). pyarrow is imported at first use.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

from runner.analysis.cause import main_causes
from runner.analysis.ranking import LEVEL, Row, rank
from runner.matrix.cell import ABSENT
from runner.protocol import stored
from runner.protocol.stored import FormatError, Latency, Range, VersionError
from runner.protocol.verdicts import Status
from runner.results import sweepfiles
from runner.results.metrics import INTERVALS
from runner.results.outcome import read_cell
from runner.results.sweeps import CELLS_FILE

# History: 1 = first version; 2 = with the level of the comparisons; 3 = without MLflow's run ids;
# 4 = figures per iteration.
FORMAT = "4"

# Of host.json, what can change between two sweeps of one machine and changes their times.
_STATE = ("cpus_allowed", "transparent_hugepages", "governor", "numa_balancing")
_TEXTS = ("sweep", "cell_id", "status", "failure", "evidence", "quality", "isa", "main_cause")
_MOST_VALUES = 50_000_000
_ENDS = {end for ends in INTERVALS.values() for end in ends}
# Of every file that is not older than it; empty in those that are.
_LATER = ("contamination",)


@dataclass(frozen=True)
class CellRow:
    """One cell of one sweep."""

    sweep: str
    """Name of its folder."""
    cell_id: str
    status: str
    """FINISHED, or what became of the first round that did not finish."""
    failure: str
    """One sentence; empty when FINISHED."""
    evidence: str
    quality: str
    """``ok``, what is wrong with the output, or ``unobserved``."""
    isa: str
    main_cause: str
    """Of the distance from its sweep's baseline; ``-`` where there is none."""
    is_baseline: bool
    """Of its sweep."""
    axes: Mapping[str, str]
    settings: Mapping[str, str]
    metrics: Mapping[str, Annotated[float, Range(-math.inf)]]
    """Names and units as in MLflow; absent where not measured, or not asked for when reading. Infinite: the end of an
    interval that knows nothing."""
    medians_s: tuple[Latency, ...]
    """Of each finished round, in seconds: a median stands for its process."""
    contamination: str = ""
    """Why the first of its contaminated rounds is one; empty without one. How many: contamination/rounds."""

    @property
    def labels(self) -> dict[str, str]:
        """Axes and settings."""
        return {**self.axes, **self.settings}

    @property
    def p50_ms(self) -> float | None:
        """None when it was not measured."""
        return self.metrics.get("latency/p50_ms")

    @property
    def contaminated_rounds(self) -> int:
        """How many of its rounds somebody else took part in."""
        return int(self.metrics.get("contamination/rounds", 0))

    @property
    def is_right(self) -> bool:
        """Measured, and its output is the model's: else it can't win."""
        return self.quality == "ok" and self.p50_ms is not None


@dataclass(frozen=True)
class Origin:
    """What a sweep ran on and with."""

    sweep: str
    host_id: str
    state: Mapping[str, str]
    """Settings of the machine that change times."""
    versions: Mapping[str, str]
    """Of Python, libc and the distributions; ABSENT where not installed."""
    level: sweepfiles.Level = LEVEL
    """Of the comparisons that it was planned for: see runner.sweep.rounds.level_of()."""


@dataclass(frozen=True)
class Cells:
    """All cells of some sweeps, in the order of the sweeps."""

    rows: Sequence[CellRow]
    origins: Sequence[Origin]


def origin(folder: Path) -> Origin:
    """What host.json says of a sweep; ``unknown`` where it is not there."""
    host, level = sweepfiles.read_host(folder), sweepfiles.read_plan(folder).level
    versions = {"python": host.python, "libc": host.libc, **host.versions}
    return Origin(
        folder.name,
        host.host_id,
        {name: getattr(host, name) or ABSENT for name in _STATE},
        {name: version or ABSENT for name, version in versions.items()},
        LEVEL if level is None else level,
    )


def of(rows: Sequence[Row], sweep: str) -> list[CellRow]:
    """The ranked cells of a sweep."""
    return [
        CellRow(
            sweep=sweep,
            cell_id=row.record.cell_id,
            status=next((o.status for o in row.record.outcomes if o.status != Status.FINISHED), Status.FINISHED),
            failure=row.record.failure or "",
            evidence=row.record.evidence,
            quality=row.record.quality,
            isa=row.record.isa,
            main_cause=cause,
            is_baseline=row.is_baseline,
            axes=dict(row.record.axes),
            settings=dict(row.record.outcomes[0].settings),
            metrics=dict(row.metrics),
            medians_s=tuple(median(samples) for samples in row.record.rounds),
            contamination=next(iter(row.record.contamination.values()), ""),
        )
        for row, cause in main_causes(rows)
    ]


def write(rows: Sequence[Row], folder: Path) -> None:
    """Leave cells.parquet in a sweep's folder; nothing when no cell ended."""
    if rows:
        known = origin(folder)
        save(of(rows, known.sweep), known, folder)


def save(cells: Sequence[CellRow], known: Origin, folder: Path) -> None:
    """Write cells.parquet whole or not at all; texts are dictionary-encoded, so equal ones cost nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def names(maps: Sequence[Mapping[str, object]]) -> list[str]:
        return list(dict.fromkeys(name for found in maps for name in found))

    columns: dict[str, Any] = {
        name: pa.array([getattr(cell, name) for cell in cells], pa.string()) for name in (*_TEXTS, *_LATER)
    }
    columns["is_baseline"] = pa.array([cell.is_baseline for cell in cells], pa.bool_())
    for prefix, maps in (("axis", [cell.axes for cell in cells]), ("setting", [cell.settings for cell in cells])):
        for name in names(maps):
            columns[f"{prefix}.{name}"] = pa.array([found.get(name) for found in maps], pa.string())
    for name in sorted(names([cell.metrics for cell in cells])):
        columns[f"metric.{name}"] = pa.array([cell.metrics.get(name) for cell in cells], pa.float64())
    columns["medians_s"] = pa.array([list(cell.medians_s) for cell in cells], pa.list_(pa.float64()))
    columns["host_id"] = pa.array([known.host_id] * len(cells), pa.string())
    for name, value in (("host_state", known.state), ("versions", known.versions)):
        columns[name] = pa.array([json.dumps(dict(value), sort_keys=True)] * len(cells), pa.string())
    table = pa.table(columns).replace_schema_metadata({"runner.format": FORMAT, "runner.level": repr(known.level)})
    temporary = folder / f".{CELLS_FILE}.{os.getpid()}.tmp"
    pq.write_table(table, temporary)
    temporary.replace(folder / CELLS_FILE)


def read(folders: Sequence[Path], metrics: Sequence[str] | None = None) -> Cells:
    """All cells of these sweeps.

    Args:
        folders: of sweeps.
        metrics: the figures to read; None reads all of them.

    Raises:
        FormatError: a file can't be read, or is of another version.
    """
    rows: list[CellRow] = []
    origins = []
    for folder in folders:
        found, known = (
            _read_file(folder / CELLS_FILE, metrics) if (folder / CELLS_FILE).exists() else _made_of_jobs(folder)
        )
        rows += found
        origins.append(known)
    return Cells(rows, origins)


def _read_file(file: Path, metrics: Sequence[str] | None) -> tuple[list[CellRow], Origin]:
    import pyarrow as pa

    again = "delete it, and it is made again from the jobs"
    try:
        data, table = _columns(file, metrics)
        return _rows(file, data, table)
    except VersionError as error:
        raise VersionError(f"{error}: compare with the one that made it") from error
    except FormatError as error:
        raise FormatError(f"{error}; {again}") from error
    except (pa.ArrowException, OSError, LookupError, ValueError, TypeError, OverflowError) as error:
        said = ascii(" ".join(str(error).split()))[1:-1][:300]
        raise FormatError(f"{file} can't be read ({said}); {again}") from error


def _columns(file: Path, metrics: Sequence[str] | None) -> tuple[dict[str, list[Any]], Mapping[bytes, bytes]]:
    """Column -> values, and the metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(pa.BufferReader(stored.read_bytes(file)))
    known = opened.schema_arrow.metadata or {}
    found = known.get(b"runner.format", b"none").decode()
    if found != FORMAT:
        raise VersionError(f"{file} has format {found}; this version reads {FORMAT}")
    # A few bytes of this format can stand for any number of equal values. Only the file's own metadata is asked: those
    # of a column, when damaged, end the process.
    if opened.metadata.num_rows * opened.metadata.num_columns > _MOST_VALUES:
        raise FormatError(f"{file} holds more than {_MOST_VALUES} values, which no sweep has")
    wanted = None if metrics is None else {f"metric.{name}" for name in metrics}
    kept = [n for n in opened.schema_arrow.names if not n.startswith("metric.") or wanted is None or n in wanted]
    table = opened.read(columns=kept)
    return {name: table.column(name).to_pylist() for name in table.column_names}, known


def _rows(file: Path, data: dict[str, list[Any]], known: Mapping[bytes, bytes]) -> tuple[list[CellRow], Origin]:
    count = len(data["cell_id"])
    if not count:
        raise FormatError(f"{file} has no cell")

    def maps(prefix: str) -> list[dict[str, Any]]:
        names = [name for name in data if name.startswith(prefix)]
        keys = [name[len(prefix) :] for name in names]
        columns = [data[name] for name in names]
        values = zip(*columns, strict=True) if columns else iter([()] * count)
        return [{key: value for key, value in zip(keys, row, strict=True) if value is not None} for row in values]

    axes, settings, metrics = (maps(prefix) for prefix in ("axis.", "setting.", "metric."))
    data["sweep"] = [file.parent.name] * count  # its folder may have been copied or renamed
    rows = [
        stored.typed(
            CellRow,
            {
                **{name: data[name][i] for name in (*_TEXTS, *_LATER) if name in data},
                "is_baseline": data["is_baseline"][i],
                "axes": axes[i],
                "settings": settings[i],
                "metrics": metrics[i],
                "medians_s": data["medians_s"][i],
            },
            file,
        )
        for i in range(count)
    ]
    for row in rows:
        odd = next((name for name, value in row.metrics.items() if math.isinf(value) and name not in _ENDS), None)
        if odd:
            raise FormatError(f"{file} can't be read: {odd} is infinite")
    origin_of = {
        "sweep": file.parent.name,
        "host_id": data["host_id"][0],
        "state": stored.parse_json(file, data["host_state"][0]),
        "versions": stored.parse_json(file, data["versions"][0]),
        "level": float(known[b"runner.level"]),
    }
    return rows, stored.typed(Origin, origin_of, file)


def _made_of_jobs(folder: Path) -> tuple[list[CellRow], Origin]:
    """The same from the files of the jobs, in the order of the plan; the first right cell stands for the baseline."""
    known = origin(folder)
    planned = [cell.cell_id for cell in sweepfiles.read_plan(folder).cells]
    there = sorted(path.name for path in (folder / "cells").iterdir() if path.is_dir())
    order = [name for name in dict.fromkeys([*planned, *there]) if name in set(there)]
    records = [record for name in order if (record := read_cell(folder, name)) is not None]
    first = next((r.cell_id for r in records if r.quality == "ok" and r.results and not r.failure), "")
    return of(rank(records, first, known.level), known.sweep), known
