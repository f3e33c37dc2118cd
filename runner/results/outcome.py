"""What became of one job: the runner's verdict, kept as a file beside the worker's result.

Reports and MLflow are filled from these files, so that a sweep needs no process that lived through all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.matrix.cell import ABSENT, AXES, INFERENCE
from runner.protocol import stored
from runner.protocol.jobfile import FORMAT
from runner.protocol.resultfile import WorkerResult, read_result, result_file
from runner.protocol.stored import Count, Duration, Figure, FormatError, VersionError
from runner.protocol.verdicts import UNOBSERVED, EvidenceVerdict, QualityFinding, QualityVerdict, Status

OUTCOME_FILE = "outcome.json"
RESULT_FILE = "result.json"

# Names from before there was Status, for the modules that still use them.
FINISHED, FAILED, KILLED = Status.FINISHED, Status.FAILED, Status.KILLED


@dataclass(frozen=True)
class Outcome:
    """One (cell, round)."""

    cell_id: str
    round: Count
    axes: Mapping[str, str]
    status: Status
    """What became of it."""
    failure: str | None = None
    """One sentence; None when FINISHED."""
    evidence: EvidenceVerdict = EvidenceVerdict.UNOBSERVED
    """Whether what ran is what was asked."""
    quality: QualityFinding = QualityVerdict.UNOBSERVED
    """Whether the output is right, or what is wrong with it: see runner.checks.quality.judge()."""
    isa: str = UNOBSERVED
    """Instruction family that oneDNN spent most of the step in."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """Metrics that come from evidence and captures: onednn/*, quality/*, itt/*, tma/*, overhead/*."""
    captures: Mapping[str, str] = field(default_factory=dict)
    """Tags of the captures: ``ok``, where the figures are from, or why there are none."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """What else tells the cell apart: see matrix.Cell.settings."""
    cost_s: Mapping[str, Duration] = field(default_factory=dict)
    """Wall time by phase, the runner's and the worker's."""
    contamination: Sequence[str] = ()
    """Why the times that count are not the job's own, see runner.checks.contamination; empty: nothing was seen."""
    attempts: Count = 1
    """Passes launched: those before the last were contaminated and are kept beside it."""
    format: int = FORMAT


@dataclass(frozen=True)
class CellRecord:
    """All jobs of one cell so far, with what their workers measured."""

    cell_id: str
    axes: Mapping[str, str]
    outcomes: Sequence[Outcome]
    results: Mapping[tuple[int, int], WorkerResult]
    """(round, instance) -> result, of the FINISHED jobs only: a failed job's samples are never summarised."""

    @property
    def rounds(self) -> list[list[float]]:
        """Samples of each finished round, in seconds: instances of one round ran together and are no replicates."""
        found: dict[int, list[float]] = {}
        for (number, _), result in sorted(self.results.items()):
            found.setdefault(number, []).extend(result.latencies_s)
        return [samples for samples in found.values() if samples]

    @property
    def is_served(self) -> bool:
        """Whether its latencies are of requests to a server."""
        return self.axes.get("scenario", INFERENCE) != INFERENCE

    @property
    def labels(self) -> dict[str, str]:
        """Axes and settings: everything a table may have a column for; ABSENT on an axis younger than the record."""
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
        """``ok`` when every round's output was right, else what was wrong, or ``unobserved``."""
        doubts = [outcome.quality for outcome in self.outcomes if outcome.quality != QualityVerdict.OK]
        return doubts[0] if doubts else QualityVerdict.OK

    @property
    def contamination(self) -> dict[int, str]:
        """Round -> why it is contaminated, for those that are."""
        return {outcome.round: "; ".join(outcome.contamination) for outcome in self.outcomes if outcome.contamination}

    @property
    def reruns(self) -> int:
        """Passes that were contaminated and run again, over all rounds."""
        return sum(outcome.attempts - 1 for outcome in self.outcomes)

    @property
    def captures(self) -> Mapping[str, str]:
        """Tags of the captures: of the round that took them."""
        return next((outcome.captures for outcome in self.outcomes if outcome.captures), {})

    @property
    def isa(self) -> str:
        """Main instruction family; several, joined by +, when rounds differ; of those rounds that could tell."""
        seen = {outcome.isa for outcome in self.outcomes}
        return "+".join(sorted(seen - {UNOBSERVED})) or UNOBSERVED


_ROUND = re.compile(r"round-([0-9]{1,9})")
_ATTEMPT = re.compile(r"attempt-([0-9]{1,9})")
# Axes that figures are computed with.
_NUMBERS = ("instances", "batch_size")
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def job_folder(sweep: Path, cell_id: str, number: int) -> Path:
    """Where everything about one job is kept."""
    return sweep / "cells" / cell_id / f"round-{number}"


def attempt_folders(job: Path) -> list[Path]:
    """What earlier attempts of a job left, in their order: the last attempt's files are the job's own."""
    found = {int(number[1]): path for path in job.iterdir() if (number := _ATTEMPT.fullmatch(path.name))}
    return [path for _, path in sorted(found.items())]


def read_outcome(path: Path) -> Outcome:
    """Read an outcome file.

    Raises:
        FormatError: torn, of another version, or of another round than its folder's.
    """
    outcome = stored.read(Outcome, path, FORMAT)
    reason = ""
    if path.parent.name != f"round-{outcome.round}":
        reason = f"it is of round {outcome.round}"
    for axis in _NUMBERS:
        if not _NUMBER.fullmatch(outcome.axes.get(axis, "")):
            reason = f"axes.{axis} is {stored.shown(outcome.axes.get(axis))}, not a number of at least 1"
    if reason:
        raise FormatError(f"{path} can't be read: {reason}")
    return outcome


def numbers(sweep: Path, cell_id: str) -> list[int]:
    """The rounds of a cell whose job has ended."""
    files = (sweep / "cells" / cell_id).glob(f"round-*/{OUTCOME_FILE}")
    return sorted({int(number[1]) for file in files if (number := _ROUND.fullmatch(file.parent.name))})


def read_cell(sweep: Path, cell_id: str) -> CellRecord | None:
    """Everything known of one cell of a sweep; None when no job of it has ended.

    Raises:
        FormatError: a file of it can't be read, with the next step.
    """
    return _record(sweep, cell_id, numbers(sweep, cell_id))


def read_job(sweep: Path, cell_id: str, number: int) -> CellRecord | None:
    """The same with one round only; None when that job has not ended.

    Raises:
        FormatError: see `read_cell`.
    """
    has_ended = (job_folder(sweep, cell_id, number) / OUTCOME_FILE).exists()
    return _record(sweep, cell_id, [number] if has_ended else [])


def _record(sweep: Path, cell_id: str, rounds: Sequence[int]) -> CellRecord | None:
    folder = sweep / "cells" / cell_id
    try:
        return _read(sweep, cell_id, rounds)
    except VersionError as error:
        raise VersionError(f"{error}: use the runner that made sweep {sweep.name}") from error
    except FormatError as error:
        raise FormatError(
            f"{error}; python -m runner resume {sweep.name} measures that round again, or remove it from {folder}"
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
                raise FormatError(f"{file} can't be read: it is of round {results[outcome.round, i].round}")
    return CellRecord(cell_id, outcomes[0].axes, outcomes, results)
