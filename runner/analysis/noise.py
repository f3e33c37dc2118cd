"""noise.json: how much equal cells differ on a host; left by a sweep of twins, read by every comparison after it.

stats/noise.py computes a floor from processes; this module says which cells are twins, which of the stored floors
holds for a host, and what it means in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated

from runner import stats
from runner.protocol import stored
from runner.protocol.stored import Count, FormatError, Range, write_json
from runner.results.outcome import CellRecord

FILE = "noise.json"
# History: 1 = first version.
FORMAT = 1
# Sentences give the figures for this number of rounds, or for the nearest number to it that was measured.
USUAL_ROUNDS = 5
# Kernels, neighbours and settings change: an older floor is named with its age.
STALE = timedelta(days=7)
MEASURE = "python -m runner -m experiment=aa"


Percent = Annotated[float, Range(0, 1e6)]
Share = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class OfRounds:
    """The noise that remains with this many rounds: `stats.RoundsFloor` in percent."""

    rounds: Count
    floor_pct: Percent | None
    """The difference that two equal cells stay under 19 times in 20; None if there were too few processes to tell."""
    detectable_pct: Percent
    """The difference that one comparison shows 4 times in 5."""
    false_alarm_pct: Percent
    """The share of relabelled pairs of equal cells that are called different, in percent."""


@dataclass(frozen=True)
class Noise:
    """What one A/A sweep showed: the content of noise.json."""

    sweep: str
    host_id: str
    date: str
    """When it was measured, ISO 8601 with its time zone."""
    axes: Mapping[str, str]
    """The axes of the cells without ``twin``; several values are joined by ``|``."""
    rounds: Count
    """How many rounds each twin has."""
    pairs: Count
    """The number of pairs of equal cells."""
    flagged: Count
    """Pairs called different, each tested alone at ``level``."""
    rate: Share
    """The share of pairs that are called different."""
    rate_low: Share
    """The lower end of the rate's 95 % interval (Clopper & Pearson 1934)."""
    rate_high: Share
    level: Share
    """The level at which each pair is tested."""
    by_rounds: Sequence[OfRounds]
    """The floor for each number of rounds, ascending."""
    format: int = FORMAT

    @property
    def when(self) -> datetime:
        """The date as a time with a time zone."""
        return datetime.fromisoformat(self.date).astimezone()

    @property
    def floors(self) -> dict[int, float]:
        """Rounds -> floor, relative (0.02: 2 %), where one is known."""
        return {by.rounds: by.floor_pct / 100 for by in self.by_rounds if by.floor_pct is not None}

    def at(self, rounds: int) -> OfRounds | None:
        """The floor for this many rounds, else for the next lower number, else for the lowest; None without any."""
        floors = [by for by in self.by_rounds if by.floor_pct is not None]
        return next((by for by in reversed(floors) if by.rounds <= rounds), floors[0] if floors else None)


@dataclass(frozen=True)
class NoiseReport:
    """What a sweep prints and records about the noise."""

    lines: tuple[str, ...] = ()
    """Lines to print."""
    floors: Mapping[int, float] = field(default_factory=dict)
    """The floors for the sweep's own comparisons; empty where none is known, and for twins, which measure them."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the sweep's run in MLflow."""


def report(records: Sequence[CellRecord], folder: Path, mlruns: Path, host_id: str) -> NoiseReport:
    """Measure the noise floor where the sweep has twins and leave noise.json; else look up the newest of this host."""
    now = datetime.now(timezone.utc)
    families = twins(records)
    if families:
        noise = measure(families, folder.name, host_id, now)
        if noise is None:
            return NoiseReport((f"A/A: one round can't show how much equal cells differ: {MEASURE} rounds=5",))
        lines = sentences(noise)
        try:
            write_json(folder / FILE, noise)
        except OSError as error:
            lines.append(f"{FILE} could not be written: {error}")
        return NoiseReport(tuple(lines), {}, figures(noise))
    compared = [record for record in records if record.results]
    if len(compared) < 2:
        return NoiseReport()
    noise, passed_over = newest(mlruns, host_id)
    rounds = max(len(record.rounds) for record in compared)
    return NoiseReport((in_words(noise, rounds, now), *passed_over), noise.floors if noise else {})


def twins(records: Sequence[CellRecord]) -> list[list[CellRecord]]:
    """Measured cells that differ in their twin alone, at least two per configuration, in the order given."""
    families: dict[tuple[tuple[str, str], ...], list[CellRecord]] = {}
    for record in records:
        if record.results and not record.failure:
            same = tuple((key, value) for key, value in record.labels.items() if key != "twin")
            families.setdefault(same, []).append(record)
    return [family for family in families.values() if len(family) > 1]


def measure(families: Sequence[Sequence[CellRecord]], sweep: str, host_id: str, now: datetime) -> Noise | None:
    """The noise floor of these twins; None when one of them has a single round."""
    cells = [[record.rounds for record in family] for family in families]
    rounds = min(len(cell) for family in cells for cell in family)
    if rounds < 2:
        return None
    floor = stats.noise_floor(cells)
    axes = [family[0].axes for family in families]
    return Noise(
        sweep=sweep,
        host_id=host_id,
        date=now.isoformat(timespec="seconds"),
        axes={
            axis: "|".join(dict.fromkeys(of_family[axis] for of_family in axes)) for axis in axes[0] if axis != "twin"
        },
        rounds=rounds,
        pairs=floor.pairs,
        flagged=floor.flagged,
        rate=floor.rate,
        rate_low=floor.rate_interval.low,
        rate_high=floor.rate_interval.high,
        level=floor.level,
        by_rounds=[
            OfRounds(
                by.rounds, None if by.difference is None else 100 * by.difference, 100 * by.detectable, 100 * by.flagged
            )
            for by in floor.by_rounds
        ],
    )


def newest(mlruns: Path, host_id: str) -> tuple[Noise | None, list[str]]:
    """The latest A/A of this host below ``mlruns`` that has a floor, and a note on each file that can't be read."""
    candidates, notes = [], []
    for file in sorted((mlruns / "sweeps").glob(f"*/{FILE}")):
        try:
            noise = read(file)
        except FormatError as error:
            notes.append(f"{file.parent.name}/{FILE} is passed over: {error}")
            continue
        if noise.host_id == host_id and noise.floors:
            candidates.append((noise.when, file.parent.name, noise))
    newest_first = sorted(candidates, key=lambda candidate: candidate[:2], reverse=True)
    return (newest_first[0][2] if candidates else None), notes


def floors_of(mlruns: Path, host_id: str) -> Mapping[int, float]:
    """Rounds -> the relative difference that equal cells show on this host, by `newest`; empty if it is not known."""
    known, _ = newest(mlruns, host_id)
    return known.floors if known else {}


def read(file: Path) -> Noise:
    """One noise.json, its sweep named by its folder, which may have been copied or renamed.

    Raises:
        FormatError: the file is torn, missing or of another version.
    """
    noise = stored.read(Noise, file, FORMAT)
    try:
        _ = noise.when - datetime.now(timezone.utc)
    except (ValueError, OverflowError) as error:  # the calendar's last day does not exist in every time zone
        raise FormatError(f"{file} can't be read: date is {stored.shown(noise.date)}") from error
    if "model" not in noise.axes or not noise.by_rounds:
        raise FormatError(f"{file} can't be read: it has no model or no floor")
    return replace(noise, sweep=file.parent.name, by_rounds=sorted(noise.by_rounds, key=lambda by: by.rounds))


def figures(noise: Noise) -> dict[str, float]:
    """The metrics of the sweep that measured it."""
    by = noise.at(USUAL_ROUNDS) or noise.by_rounds[-1]
    return {
        "noise/pairs": float(noise.pairs),
        "noise/pairs_flagged": float(noise.flagged),
        "noise/false_alarm_pct": by.false_alarm_pct,
        "noise/detectable_pct": by.detectable_pct,
        **({} if by.floor_pct is None else {"noise/floor_pct": by.floor_pct}),
    }


def sentences(noise: Noise) -> list[str]:
    """The lines that an A/A sweep prints: its false alarms, and its floor."""
    rate = f"{_pct(100 * noise.rate_low)} to {_pct(100 * noise.rate_high)} %"
    alarms = f"A/A: {noise.flagged} of {noise.pairs} pairs called different (95 % interval of the rate: {rate})"
    by = noise.at(USUAL_ROUNDS)
    if by is None:
        return [alarms, "A/A: too few processes for a noise floor; raise rounds, or name more twins: twin=a,b,c,d"]
    relabelled = f"{_pct(by.false_alarm_pct)} % of relabelled ones"
    return [
        f"{alarms}, and {relabelled}",
        f"differences under {_pct(by.floor_pct)} % can't be seen on this host with {by.rounds} rounds; one of "
        f"{_pct(by.detectable_pct)} % is found 4 times in 5",
    ]


def in_words(noise: Noise | None, rounds: int, now: datetime) -> str:
    """A sentence on the noise floor of the host, for cells that have at most this many rounds."""
    by = noise.at(rounds) if noise else None
    if noise is None or by is None:
        return f"tip: how much equal cells differ on this host is not known yet: {MEASURE} measures it"
    age = now - noise.when
    origin = f"A/A of {noise.axes['model']}, {noise.when.date()}, sweep {noise.sweep}, {by.rounds} rounds"
    text = f"differences under {_pct(by.floor_pct)} % can't be seen on this host ({origin})"
    return text if age <= STALE else f"{text}; that is {age.days} days old: {MEASURE} measures it again"


def _pct(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}" if value < 99.5 else f"{value:.0f}"
