"""The outcome of a job: the runner's verdict, in a file next to the worker's result, and a cell's record made of them.

Reports and MLflow are filled from these files, so that a sweep needs no process that lives through all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from runner import stats
from runner.protocol import stored
from runner.protocol.cell import ABSENT, AXES, INFERENCE
from runner.protocol.jobfile import FORMAT
from runner.protocol.resultfile import WorkerResult, read_result, result_file
from runner.protocol.stored import Count, Duration, Figure, FormatError, VersionError
from runner.protocol.verdicts import UNOBSERVED, EvidenceVerdict, QualityFinding, QualityVerdict, Status
from runner.results.command_lines import resume_line

DROPPED_FILE = "dropped.json"
# History: 1 = first version.
FORMAT_OF_DROPPED = 1
OUTCOME_FILE = "outcome.json"
RESULT_FILE = "result.json"


@dataclass(frozen=True)
class Outcome:
    """What became of one job, that is of one cell in one round."""

    cell_id: str
    round: Count
    axes: Mapping[str, str]
    status: Status
    """What became of it."""
    failure: str | None = None
    """The reason in one sentence; None when FINISHED."""
    evidence: EvidenceVerdict = EvidenceVerdict.UNOBSERVED
    """Whether what ran is what was asked."""
    quality: QualityFinding = QualityVerdict.UNOBSERVED
    """Whether the output is right, or what is wrong with it: see runner.checks.quality.judge()."""
    isa: str = UNOBSERVED
    """The instruction family in which oneDNN spent most of an iteration."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """The metrics from evidence and captures: onednn/*, quality/*, itt/*, tma/*, overhead/*."""
    captures: Mapping[str, str] = field(default_factory=dict)
    """The tags of the captures: ``ok``, the source of the figures, or why there are none."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """The cell's settings: see runner.protocol.cell.Cell.settings."""
    cost_s: Mapping[str, Duration] = field(default_factory=dict)
    """The wall time of each phase of the runner and of the worker, in seconds."""
    contamination: Sequence[str] = ()
    """Who else was at work while the job was timed, see runner.protocol.contamination; empty if nobody was seen."""
    notes: Sequence[str] = ()
    """What a reader of the result must know and no check fails for: see WorkerResult.notes."""
    attempts: Count = 1
    """The number of passes launched; those before the last failed or were contaminated, and are kept next to it."""
    repeats: Count = 0
    """How often the timed loop was run again in the same process, because others had disturbed it."""
    format: int = FORMAT


@dataclass(frozen=True)
class CaptureOutcome:
    """What became of a cell's captures, which are taken in a process of their own after the last timing round."""

    cell_id: str
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """The metrics from captures: itt/*, tma/*, counters/*, overhead/*."""
    captures: Mapping[str, str] = field(default_factory=dict)
    """The tags of the captures: ``ok``, the source of the figures, or why there are none."""
    cost_s: Mapping[str, Duration] = field(default_factory=dict)
    """The wall time of the process, and of the separate passes."""
    format: int = FORMAT


@dataclass(frozen=True)
class Dropped:
    """Why a cell has no further round in a race (rounds=race): the content of dropped.json in its folder."""

    cell_id: str
    after: Count
    """The number of rounds that the race had had."""
    why: str
    """The reason in words."""
    format: int = FORMAT_OF_DROPPED


@dataclass(frozen=True)
class CellRecord:
    """All jobs of one cell so far, with the results of their workers."""

    cell_id: str
    axes: Mapping[str, str]
    outcomes: Sequence[Outcome]
    results: Mapping[tuple[int, int], WorkerResult]
    """(round, instance) -> result, for FINISHED jobs only: a failed job's latencies are never summarised."""
    captured: CaptureOutcome | None = None
    """What became of its captures; None if none were taken, or not yet."""
    dropped: Dropped | None = None
    """Why a race gave it no further round; None if it was not dropped."""

    @property
    def by_round(self) -> dict[int, list[float]]:
        """Number of each finished round -> its latencies, in seconds.

        The instances of one round are pooled: they ran together and are not replicates.
        """
        pooled: dict[int, list[float]] = {}
        for (number, _), result in sorted(self.results.items()):
            pooled.setdefault(number, []).extend(result.latencies_s)
        return {number: latencies_s for number, latencies_s in pooled.items() if latencies_s}

    @property
    def rounds(self) -> list[list[float]]:
        """The latencies of each finished round, in seconds."""
        return list(self.by_round.values())

    @cached_property
    def shape_notes(self) -> tuple[int, tuple[str, ...]]:
        """The first round whose latencies have something that stands out, and what that is; empty if none has.

        It takes milliseconds per round, and every text about the cell asks for it.
        """
        shapes = (
            (number, stats.describe(latencies_s, is_brief=True).notes) for number, latencies_s in enumerate(self.rounds)
        )
        return next(((number, texts) for number, texts in shapes if texts), (0, ()))

    @property
    def is_served(self) -> bool:
        """Whether its latencies are those of requests to a server."""
        return self.axes.get("scenario", INFERENCE) != INFERENCE

    @property
    def labels(self) -> dict[str, str]:
        """Its axes and settings, which are a table's possible columns; ABSENT for an axis younger than the record."""
        return {**dict.fromkeys(AXES, ABSENT), **self.axes, **self.outcomes[0].settings}

    @property
    def failure(self) -> str | None:
        """The first failure among the rounds."""
        return next((outcome.failure for outcome in self.outcomes if outcome.failure), None)

    @property
    def evidence(self) -> EvidenceVerdict:
        """The worst of the rounds' verdicts."""
        verdicts = {outcome.evidence for outcome in self.outcomes}
        worst_first = (EvidenceVerdict.MISMATCH, EvidenceVerdict.UNOBSERVED, EvidenceVerdict.OK)
        return next((verdict for verdict in worst_first if verdict in verdicts), EvidenceVerdict.UNOBSERVED)

    @property
    def quality(self) -> QualityFinding:
        """``ok`` if the output of every round was right, else what was wrong with one, or ``unobserved``."""
        doubts = [outcome.quality for outcome in self.outcomes if outcome.quality != QualityVerdict.OK]
        return doubts[0] if doubts else QualityVerdict.OK

    @property
    def contamination(self) -> dict[int, str]:
        """Number of each contaminated round -> why it is contaminated."""
        return {outcome.round: "; ".join(outcome.contamination) for outcome in self.outcomes if outcome.contamination}

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes of all rounds, each once, and why a race dropped the cell."""
        race = [f"dropped from the race after round {self.dropped.after}: {self.dropped.why}"] if self.dropped else []
        return tuple(dict.fromkeys([*race, *(note for outcome in self.outcomes for note in outcome.notes)]))

    @property
    def reruns(self) -> int:
        """The number of passes that were run again, over all rounds."""
        return sum(outcome.attempts - 1 + outcome.repeats for outcome in self.outcomes)

    @property
    def captures(self) -> Mapping[str, str]:
        """The tags of the captures; older sweeps took them in a round."""
        of_rounds = next((outcome.captures for outcome in self.outcomes if outcome.captures), {})
        return {**of_rounds, **(self.captured.captures if self.captured else {})}

    @property
    def isa(self) -> str:
        """The main instruction family; several joined by ``+`` if rounds differ, ``unobserved`` if most saw none."""
        families = [outcome.isa for outcome in self.outcomes if outcome.isa != UNOBSERVED]
        return "+".join(sorted(set(families))) if 2 * len(families) >= len(self.outcomes) else UNOBSERVED


_ROUND = re.compile(r"round-([0-9]{1,9})")
_ATTEMPT = re.compile(r"attempt-([0-9]{1,9})")
# The axes that figures are computed with.
_NUMBER_AXES = ("instances", "batch_size")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def job_folder(sweep: Path, cell_id: str, number: int) -> Path:
    """The folder with everything about one job."""
    return sweep / "cells" / cell_id / f"round-{number}"


# The folder of a cell's captures, beside those of its rounds.
_CAPTURES = "captures"


def captures_job(sweep: Path, cell_id: str) -> Path:
    """The folder of the process that takes a cell's captures."""
    return sweep / "cells" / cell_id / _CAPTURES


def captures_folder(sweep: Path, cell_id: str) -> Path:
    """The folder that has what the captures of a cell left; older sweeps took them in the first round."""
    folder = captures_job(sweep, cell_id)
    return folder if folder.exists() else job_folder(sweep, cell_id, 0)


def attempt_folders(job: Path) -> list[Path]:
    """The folders of a job's earlier attempts, in their order; the files of the last attempt are in ``job`` itself."""
    attempts = {int(number[1]): path for path in job.iterdir() if (number := _ATTEMPT.fullmatch(path.name))}
    return [path for _, path in sorted(attempts.items())]


def read_outcome(path: Path) -> Outcome:
    """Read an outcome file.

    Raises:
        FormatError: it is torn, of another version, or of another round than its folder.
    """
    outcome = stored.read(Outcome, path, FORMAT)
    fault = ""
    if path.parent.name != f"round-{outcome.round}":
        fault = f"it belongs to round {outcome.round}"
    for axis in _NUMBER_AXES:
        if not _NUMBER.fullmatch(outcome.axes.get(axis, "")):
            fault = f"axes.{axis} is {stored.shown(outcome.axes.get(axis))}, not a number of at least 1"
    if fault:
        raise FormatError(f"{path} can't be read: {fault}")
    return outcome


def read_captured(sweep: Path, cell_id: str) -> CaptureOutcome | None:
    """Read what became of a cell's captures; None if they have not been taken.

    Raises:
        FormatError: the file is torn, of another version, or of another cell.
    """
    file = captures_job(sweep, cell_id) / OUTCOME_FILE
    if not file.exists():
        return None
    outcome = stored.read(CaptureOutcome, file, FORMAT)
    if outcome.cell_id != cell_id:
        raise FormatError(f"{file} can't be read: it belongs to another cell")
    return outcome


def _captured(sweep: Path, cell_id: str) -> CaptureOutcome | None:
    """What became of a cell's captures; a file that can't be read costs the captures and not the timing."""
    try:
        return read_captured(sweep, cell_id)
    except FormatError as error:
        return CaptureOutcome(cell_id, captures={"captures": f"failed: {error}"})


def ended_rounds(sweep: Path, cell_id: str) -> list[int]:
    """The numbers of the rounds in which a cell's job has ended."""
    files = (sweep / "cells" / cell_id).glob(f"round-*/{OUTCOME_FILE}")
    return sorted({int(number[1]) for file in files if (number := _ROUND.fullmatch(file.parent.name))})


def has_results(sweep: Path) -> bool:
    """Whether some job of a sweep ended by itself; a sweep that left no jobs, but a table of its cells, has results."""
    files = (sweep / "cells").glob(f"*/round-*/{OUTCOME_FILE}")
    statuses = (_status(file) for file in files)
    first = next(statuses, Status.FINISHED if not (sweep / "cells").is_dir() else Status.KILLED)
    return first != Status.KILLED or any(status != Status.KILLED for status in statuses)


def _status(file: Path) -> Status | None:
    """How a job ended; None if its outcome can't be read, which its reader will say."""
    try:
        return stored.read(Outcome, file, FORMAT).status
    except FormatError:
        return None


def read_cell(sweep: Path, cell_id: str) -> CellRecord | None:
    """Read the record of one cell of a sweep; None when no job of it has ended.

    A job that the user interrupted counts as not run where another round of the cell has ended.

    Raises:
        FormatError: one of its files can't be read; the message says what to do next.
    """
    record = _record(sweep, cell_id, ended_rounds(sweep, cell_id), with_captures=True)
    if record is None:
        return None
    ended = [outcome for outcome in record.outcomes if outcome.status != Status.KILLED]
    return replace(record, outcomes=ended or record.outcomes)


def read_job(sweep: Path, cell_id: str, number: int) -> CellRecord | None:
    """Read the record of one job of a cell; None when that job has not ended.

    Raises:
        FormatError: see `read_cell`.
    """
    has_ended = (job_folder(sweep, cell_id, number) / OUTCOME_FILE).exists()
    return _record(sweep, cell_id, [number] if has_ended else [])


def _record(sweep: Path, cell_id: str, rounds: Sequence[int], with_captures: bool = False) -> CellRecord | None:
    folder = sweep / "cells" / cell_id
    try:
        record = _read(sweep, cell_id, rounds)
        return replace(record, captured=_captured(sweep, cell_id)) if record and with_captures else record
    except VersionError as error:
        raise VersionError(f"{error}: use the runner that made sweep {sweep.name}") from error
    except FormatError as error:
        raise FormatError(
            f"{error}; {resume_line(sweep)} measures that round again, or remove it from {folder}"
        ) from error


def _read(sweep: Path, cell_id: str, rounds: Sequence[int]) -> CellRecord | None:
    outcomes = [read_outcome(job_folder(sweep, cell_id, number) / OUTCOME_FILE) for number in rounds]
    if not outcomes:
        return None
    instances = int(outcomes[0].axes["instances"])
    results = {}
    for outcome in outcomes:
        folder = job_folder(sweep, cell_id, outcome.round)
        if outcome.axes != outcomes[0].axes:
            raise FormatError(f"{folder / OUTCOME_FILE} can't be read: its axes are not those of the other rounds")
        for i in range(instances if outcome.status == Status.FINISHED else 0):
            file = folder / result_file(i, instances)
            results[outcome.round, i] = read_result(file)
            if results[outcome.round, i].round != outcome.round:
                raise FormatError(f"{file} can't be read: it belongs to round {results[outcome.round, i].round}")
    file = sweep / "cells" / cell_id / DROPPED_FILE
    dropped = stored.read(Dropped, file, FORMAT_OF_DROPPED) if file.exists() else None
    return CellRecord(cell_id, outcomes[0].axes, outcomes, results, dropped=dropped)
