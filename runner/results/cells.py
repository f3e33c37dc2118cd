"""cells.parquet: one row per cell, with all that ranking and comparing a sweep need, in one file that is fast to read.

It is made from the outcomes of the jobs (runner.results.outcome), which are the record, at the end of a sweep; and made
again in memory for a sweep that has no such file because it was killed or is older. pyarrow is imported at first use.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Annotated, Any

from runner.protocol import stored
from runner.protocol.cell import ABSENT, AXES, INFERENCE
from runner.protocol.evidence import ModelEvidence
from runner.protocol.stored import Count, FormatError, Latency, Range, VersionError
from runner.protocol.verdicts import QualityVerdict, Status
from runner.results import planfile
from runner.results.metric_names import Metric
from runner.results.metrics import INTERVALS, cell_metrics
from runner.results.outcome import CellRecord, read_cell
from runner.results.sweeps import CELLS_FILE

# Chance of calling any cell of a sweep different when all are equal.
LEVEL = 0.05
# History: 1 = first version; 2 = with the level of the comparisons; 3 = without MLflow's run ids;
# 4 = figures per iteration.
FORMAT = "4"

# Fields of host.json that can change between two sweeps of one machine and change their times.
_STATE = ("kernel", "cpus_allowed", "transparent_hugepages", "governor", "numa_balancing")
_TEXTS = ("cell_id", "status", "failure", "evidence", "quality", "isa")
# Columns that older files of this format lack: their cells have the defaults of CellRow.
_LATER = (
    "contamination",
    "contaminated",
    "reruns",
    "jobs",
    "captures",
    "notes",
    "rounds",
    "dropped_after",
    "model",
    "torch",
    "cpus",
)
_MOST_VALUES = 50_000_000
_ENDS = {end for ends in INTERVALS.values() for end in ends}


@dataclass(frozen=True)
class CellRow:
    """One cell of one sweep."""

    sweep: str
    """The name of its sweep's folder."""
    cell_id: str
    status: str
    """FINISHED, or what became of the first round that did not finish."""
    failure: str
    """Why it failed, in one sentence; empty if it FINISHED."""
    evidence: str
    """Whether what ran is what was asked: ``ok``, ``mismatch`` or ``unobserved``."""
    quality: str
    """``ok``, what is wrong with the output, or ``unobserved``."""
    isa: str
    """The instruction set that oneDNN spent most of its time in."""
    is_baseline: bool
    """Whether it is the baseline of its own sweep."""
    axes: Mapping[str, str]
    settings: Mapping[str, str]
    metrics: Mapping[str, Annotated[float, Range(-math.inf)]]
    """Figures with their names and units in MLflow; absent if not measured, or not requested when reading. Only the end
    of an interval may be infinite."""
    medians_s: tuple[Latency, ...]
    """The median of each finished round, in seconds, which stands for its process."""
    contamination: str = ""
    """Why its first contaminated round is contaminated; empty if none is."""
    contaminated: tuple[Count, ...] = ()
    """The rounds, counted from 0, that somebody else took part in."""
    reruns: Count = 0
    """How many contaminated attempts were made again, over all rounds."""
    jobs: Count = 0
    """How many of its jobs have ended."""
    captures: Mapping[str, str] = field(default_factory=dict)
    """The tags that say what became of its captures."""
    notes: tuple[str, ...] = ()
    """What a reader must know about it and no check fails for, in sentences."""
    rounds: tuple[Count, ...] = ()
    """The number of the round of each of ``medians_s``, counted from 0; empty in older files."""
    model: ModelEvidence | None = None
    """What the model is, by its fp32 reference; None in older files."""
    dropped_after: Count = 0
    """How many rounds a race had had when it dropped the cell; 0 if it did not."""
    torch: str = ""
    """The version of torch that ran, with the suffix of its build; empty where that is not known."""
    cpus: tuple[Count, ...] = ()
    """The logical CPUs that its threads could use, ascending; empty where that is not known."""

    @property
    def labels(self) -> dict[str, str]:
        """Axes and settings; ABSENT on an axis that is younger than the sweep."""
        return {**dict.fromkeys(AXES, ABSENT), **self.axes, **self.settings}

    @property
    def p50_ms(self) -> float | None:
        """Median latency per iteration; None when it was not measured."""
        return self.metrics.get(Metric.P50)

    @property
    def by_round(self) -> dict[tuple[str, int], float]:
        """(sweep, round) -> the median of its process, in seconds, as `stats.fit` takes it.

        Contaminated rounds are left out as long as two others remain: what disturbed them is no noise of the host.
        Without the numbers of the rounds, which older files lack, none is taken to be missing.
        """
        numbers = self.rounds if len(self.rounds) == len(self.medians_s) else range(len(self.medians_s))
        medians = {(self.sweep, number): value for number, value in zip(numbers, self.medians_s, strict=True)}
        clean = {key: value for key, value in medians.items() if key[1] not in self.contaminated}
        return clean if len(clean) > 1 else medians

    @property
    def contaminated_rounds(self) -> int:
        """How many of its measured rounds somebody else took part in."""
        return int(self.metrics.get(Metric.CONTAMINATED_ROUNDS, 0))

    @property
    def is_right(self) -> bool:
        """Whether it was measured and its output is the model's; otherwise it can't win."""
        return is_right(self.metrics, self.quality)

    @property
    def is_interrupted(self) -> bool:
        """Whether the user stopped its only job, which is no failure of the cell."""
        return self.status == Status.KILLED

    @property
    def is_served(self) -> bool:
        """Whether its latencies are of requests to a server."""
        return self.axes.get("scenario", INFERENCE) != INFERENCE

    @property
    def place(self) -> tuple[bool, bool, float]:
        """What a ranking sorts by: right cells fastest first, then wrong ones, then those that were not measured."""
        return self.p50_ms is None, not self.is_right, self.p50_ms or 0.0


def is_right(metrics: Mapping[str, float], quality: str | None) -> bool:
    """Whether a cell has a place in a ranking: it was measured, and its output is the model's."""
    return Metric.P50 in metrics and quality == QualityVerdict.OK


@dataclass(frozen=True)
class Origin:
    """What a sweep ran on and with."""

    sweep: str
    host_id: str
    state: Mapping[str, str]
    """Settings of the machine that change times, and what the sweep inherited from its caller."""
    versions: Mapping[str, str]
    """The versions of Python, libc and the distributions; ABSENT where not installed."""
    level: planfile.Level = LEVEL
    """The level of the comparisons that it was planned for: see runner.sweep.rounds.level_of()."""
    usd_per_hour: planfile.Price | None = None
    """What the host costs; None where nobody said so."""


@dataclass(frozen=True)
class Cells:
    """All cells of some sweeps, in the order of the sweeps."""

    rows: Sequence[CellRow]
    origins: Sequence[Origin]


def origin(folder: Path) -> Origin:
    """What host.json and plan.json say about a sweep; the host is ``unknown`` without the file."""
    host, plan = planfile.read_host(folder), planfile.read_plan(folder)
    versions = {"python": host.python, "libc": host.libc, **host.versions}
    return Origin(
        folder.name,
        host.host_id,
        {**{name: getattr(host, name) or ABSENT for name in _STATE}, **host.inherited},
        {name: version or ABSENT for name, version in versions.items()},
        LEVEL if plan.level is None else plan.level,
        plan.usd_per_hour,
    )


def cell_row(record: CellRecord, sweep: str, is_baseline: bool = False) -> CellRow:
    """One cell as its record in a sweep describes it."""
    return CellRow(
        sweep=sweep,
        cell_id=record.cell_id,
        status=next(
            (outcome.status for outcome in record.outcomes if outcome.status != Status.FINISHED), Status.FINISHED
        ),
        failure=record.failure or "",
        evidence=record.evidence,
        quality=record.quality,
        isa=record.isa,
        is_baseline=is_baseline,
        axes=dict(record.axes),
        settings=dict(record.outcomes[0].settings),
        metrics=cell_metrics(record),
        medians_s=tuple(median(latencies) for latencies in record.by_round.values()),
        rounds=tuple(record.by_round),
        dropped_after=record.dropped.after if record.dropped else 0,
        model=next((result.evidence.model for result in record.results.values() if result.evidence), None),
        torch=next((result.evidence.versions.torch for result in record.results.values() if result.evidence), ""),
        cpus=_cpus(record),
        contamination=next(iter(record.contamination.values()), ""),
        contaminated=tuple(record.contamination),
        reruns=record.reruns,
        jobs=len(record.outcomes),
        captures=dict(record.captures),
        notes=record.notes,
    )


def _cpus(record: CellRecord) -> tuple[int, ...]:
    """The logical CPUs that the threads of all instances of a cell could use."""
    affinities = [result.evidence.affinity for result in record.results.values() if result.evidence]
    threads = [thread.cpus or () for affinity in affinities for thread in affinity.threads]
    return tuple(sorted({cpu for cpus in (*threads, *(affinity.allowed for affinity in affinities)) for cpu in cpus}))


def write(cells: Sequence[CellRow], causes: Mapping[str, str], folder: Path) -> None:
    """Leave cells.parquet in a sweep's folder; nothing when no cell ended."""
    if cells:
        save(cells, origin(folder), folder, causes)


def save(cells: Sequence[CellRow], origin: Origin, folder: Path, causes: Mapping[str, str] | None = None) -> None:
    """Write cells.parquet whole or not at all; texts are dictionary-encoded, so equal ones cost nothing.

    Args:
        causes: cell_id -> main cause, for people who read the file with pandas; a ranking finds its own.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    def names(maps: Sequence[Mapping[str, object]]) -> list[str]:
        return list(dict.fromkeys(str(name) for table in maps for name in table))

    texts = ("sweep", *_TEXTS, "contamination", "torch")
    columns: dict[str, Any] = {name: pa.array([getattr(cell, name) for cell in cells], pa.string()) for name in texts}
    columns["main_cause"] = pa.array([(causes or {}).get(cell.cell_id, "-") for cell in cells], pa.string())
    columns["contaminated"] = pa.array([list(cell.contaminated) for cell in cells], pa.list_(pa.int64()))
    columns["rounds"] = pa.array([list(cell.rounds) for cell in cells], pa.list_(pa.int64()))
    columns["cpus"] = pa.array([list(cell.cpus) for cell in cells], pa.list_(pa.int64()))
    columns["notes"] = pa.array([list(cell.notes) for cell in cells], pa.list_(pa.string()))
    for name in ("reruns", "jobs", "dropped_after"):
        columns[name] = pa.array([getattr(cell, name) for cell in cells], pa.int64())
    captures = [json.dumps(dict(cell.captures), sort_keys=True) for cell in cells]
    columns["captures"] = pa.array(captures, pa.string())
    models = [None if cell.model is None else json.dumps(asdict(cell.model)) for cell in cells]
    columns["model"] = pa.array(models, pa.string())
    columns["is_baseline"] = pa.array([cell.is_baseline for cell in cells], pa.bool_())
    for prefix, maps in (("axis", [cell.axes for cell in cells]), ("setting", [cell.settings for cell in cells])):
        for name in names(maps):
            columns[f"{prefix}.{name}"] = pa.array([table.get(name) for table in maps], pa.string())
    for name in sorted(names([cell.metrics for cell in cells])):
        columns[f"metric.{name}"] = pa.array([cell.metrics.get(name) for cell in cells], pa.float64())
    columns["medians_s"] = pa.array([list(cell.medians_s) for cell in cells], pa.list_(pa.float64()))
    columns["host_id"] = pa.array([origin.host_id] * len(cells), pa.string())
    for name, value in (("host_state", origin.state), ("versions", origin.versions)):
        columns[name] = pa.array([json.dumps(dict(value), sort_keys=True)] * len(cells), pa.string())
    metadata = {"runner.format": FORMAT, "runner.level": repr(origin.level)}
    if origin.usd_per_hour is not None:
        metadata["runner.usd_per_hour"] = repr(origin.usd_per_hour)
    table = pa.table(columns).replace_schema_metadata(metadata)
    temporary = folder / f".{CELLS_FILE}.{os.getpid()}.tmp"
    pq.write_table(table, temporary)
    temporary.replace(folder / CELLS_FILE)


def read(folders: Sequence[Path], metrics: Sequence[str] | None = None) -> Cells:
    """All cells of these sweeps.

    Args:
        folders: the folders of the sweeps.
        metrics: the figures to read; None reads all of them.

    Raises:
        FormatError: a file can't be read, or is of another version.
    """
    rows: list[CellRow] = []
    origins = []
    for folder in folders:
        file = folder / CELLS_FILE
        cells, its_origin = _read_file(file, metrics) if file.exists() else _made_of_jobs(folder)
        rows += cells
        origins.append(its_origin)
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
        reason = ascii(" ".join(str(error).split()))[1:-1][:300]
        raise FormatError(f"{file} can't be read ({reason}); {again}") from error


def _columns(file: Path, metrics: Sequence[str] | None) -> tuple[dict[str, list[Any]], Mapping[bytes, bytes]]:
    """Column -> values, and the metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(pa.BufferReader(stored.read_bytes(file)))
    metadata = opened.schema_arrow.metadata or {}
    version = metadata.get(b"runner.format", b"none").decode()
    if version != FORMAT:
        raise VersionError(f"{file} has format {version}; this version reads {FORMAT}")
    # A few bytes of this format can stand for any number of equal values. Only the file's own metadata is read:
    # damaged metadata of a column ends the process.
    if opened.metadata.num_rows * opened.metadata.num_columns > _MOST_VALUES:
        raise FormatError(f"{file} holds more than {_MOST_VALUES} values, which no sweep has")
    wanted = None if metrics is None else {f"metric.{name}" for name in metrics}
    names = [n for n in opened.schema_arrow.names if not n.startswith("metric.") or wanted is None or n in wanted]
    table = opened.read(columns=names)
    return {name: table.column(name).to_pylist() for name in table.column_names}, metadata


def _rows(file: Path, data: dict[str, list[Any]], metadata: Mapping[bytes, bytes]) -> tuple[list[CellRow], Origin]:
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
    if "captures" in data:
        data["captures"] = [stored.parse_json(file, text) for text in data["captures"]]
    if "model" in data:
        data["model"] = [None if text is None else stored.parse_json(file, text) for text in data["model"]]
    rows = [
        stored.typed(
            CellRow,
            {
                **{name: data[name][i] for name in (*_TEXTS, *_LATER) if name in data},
                "sweep": file.parent.name,  # its folder may have been copied or renamed
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
    price = metadata.get(b"runner.usd_per_hour")
    origin_of = {
        "sweep": file.parent.name,
        "host_id": data["host_id"][0],
        "state": stored.parse_json(file, data["host_state"][0]),
        "versions": stored.parse_json(file, data["versions"][0]),
        "level": float(metadata[b"runner.level"]),
        "usd_per_hour": None if price is None else float(price),
    }
    return rows, stored.typed(Origin, origin_of, file)


def _made_of_jobs(folder: Path) -> tuple[list[CellRow], Origin]:
    """A sweep's cells from the files of its jobs, fastest first; the first right cell of the plan is the baseline."""
    planned = [cell.cell_id for cell in planfile.read_plan(folder).cells]
    present = sorted(path.name for path in (folder / "cells").iterdir() if path.is_dir())
    order = [name for name in dict.fromkeys([*planned, *present]) if name in set(present)]
    records = [record for name in order if (record := read_cell(folder, name)) is not None]
    first = next((r.cell_id for r in records if r.quality == "ok" and r.results and not r.failure), "")
    cells = [cell_row(record, folder.name, record.cell_id == first) for record in records]
    return sorted(cells, key=lambda cell: cell.place), origin(folder)
