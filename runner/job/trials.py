"""Trials of models before a sweep: in one process per torch build, and kept on this host by content.

What is kept depends on the model's code and files and on the libraries, not on where it runs: a model that has passed
is not tried again until one of these changes.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runner import launch
from runner.job import references
from runner.launch import environment
from runner.machine import execute, processes
from runner.machine.installation import TRIAL, cache
from runner.machine.torch_builds import build_of
from runner.protocol import content_hash, stored
from runner.protocol.cell import Cell
from runner.protocol.jobfile import JobSpec
from runner.protocol.stored import FormatError, write_json
from runner.protocol.torch_build import TorchBuild
from runner.protocol.trial import FORMAT, JOB_FILE, REFERENCE_FILE, TRIAL_FILE, Trial


@dataclass(frozen=True)
class Candidate:
    """A cell whose model is to be tried, with what its results depend on besides."""

    cell: Cell
    identity: Mapping[str, str]

    @property
    def key(self) -> str:
        """The same for all cells whose models, batches and sequences are the same."""
        model = self.cell.model
        asked = [FORMAT, model.target, dict(model.kwargs), self.cell.batch_size, self.cell.sequence_length]
        # An environment of the user's own may have other packages, which the model imports.
        asked += [self.cell.seed, self.cell.torch.name, self.cell.torch.path]
        text = json.dumps([asked, references.of_model(self.identity)], sort_keys=True, default=str)
        return content_hash.short(text.encode())


@dataclass(frozen=True)
class Trials:
    """What is known of the models of a sweep."""

    folder: Path
    """A temporary folder for the files of the trials, which the caller removes."""

    def known(self, candidates: Sequence[Candidate]) -> dict[str, Trial]:
        """Key -> trial of every model that has passed one on this host."""
        return {key: trial for key in dict.fromkeys(c.key for c in candidates) if (trial := _kept(key)) is not None}

    def waiting(self, candidates: Sequence[Candidate]) -> dict[str, Candidate]:
        """Key -> the first candidate of every model that has to be tried."""
        waiting = {candidate.key: candidate for candidate in reversed(candidates)}
        known = self.known(candidates)
        return {key: candidate for key, candidate in reversed(waiting.items()) if key not in known}

    def run(self, waiting: Mapping[str, Candidate], timeout_s: float) -> dict[str, Trial]:
        """Try these models: key -> trial.

        Args:
            timeout_s: the seconds after which trials are stopped.
        """
        trials = dict[str, Trial]()
        for own in _by_build(waiting):
            for number, candidate in enumerate(own.values()):
                write_json(self.folder / JOB_FILE.format(number), self._job(candidate.cell, timeout_s))
            ended = self._start(build_of(next(iter(own.values())).cell.torch), timeout_s)
            for number, (key, candidate) in enumerate(own.items()):
                trials[key] = self._taken(number, key, candidate, ended, timeout_s)
            self._clear()
        return trials

    def hand_over_weights(
        self, candidates: Sequence[Candidate], trials: Mapping[str, Trial], sweep: Path, timeout_s: float
    ) -> list[str]:
        """Give a model one set of weights in all torch builds of a sweep, where the same seed makes several.

        The first build's are left where the jobs of all builds look for them.

        Args:
            candidates: the cells of the sweep.
            trials: key -> trial of their models.
            sweep: the sweep's folder.

        Returns:
            One sentence for each model to which this was done, or could not be.
        """
        same: dict[Path, dict[str, Candidate]] = {}
        for candidate in candidates:
            same.setdefault(references.weights_file(sweep, candidate.cell), {}).setdefault(candidate.key, candidate)
        differing = {
            file: found
            for file, found in same.items()
            if len({weights for key in found if (weights := trials.get(key, Trial()).weights)}) > 1
        }
        sentences = []
        first = {file: next(iter(found.values())) for file, found in differing.items()}
        for own in _by_build({str(file): candidate for file, candidate in first.items() if not file.exists()}):
            for number, (name, candidate) in enumerate(own.items()):
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                job = replace(self._job(candidate.cell, timeout_s), weights=name)
                write_json(self.folder / JOB_FILE.format(number), job)
            ended = self._start(build_of(next(iter(own.values())).cell.torch), timeout_s)
            for number, candidate in enumerate(own.values()):
                problem = self._result(number, ended, timeout_s).problem
                if problem:
                    sentences.append(f"model={candidate.cell.model.name}: {problem}")
            self._clear()
        for file, candidate in first.items():
            if file.exists():
                # What the trials computed, they computed with other weights.
                for other in differing[file].values():
                    self._reference_of(other).unlink(missing_ok=True)
                sentences.append(
                    f"model={candidate.cell.model.name}: the torch builds make different weights from one seed, so all "
                    f"get those of torch={candidate.cell.torch.name}"
                )
        return sentences

    def _clear(self) -> None:
        for left in self.folder.glob("*.json"):
            left.unlink()

    def _taken(self, number: int, key: str, candidate: Candidate, ended: execute.Ended, timeout_s: float) -> Trial:
        """The result of one trial, which is kept with its reference if the model has passed."""
        trial = self._result(number, ended, timeout_s)
        if trial.problem is None:
            cell = replace(candidate.cell, sequence_length=trial.sequence_length)
            for kept in {key, replace(candidate, cell=cell).key}:
                _keep(kept, trial)
            reference = self.folder / REFERENCE_FILE.format(number)
            reference.replace(self._reference_of(replace(candidate, cell=cell)))
        return trial

    def _reference_of(self, candidate: Candidate) -> Path:
        return self.folder / f"{candidate.key}-{candidate.cell.seed}-{candidate.cell.inputs}.pt"

    def _job(self, cell: Cell, timeout_s: float) -> JobSpec:
        cpus = sorted(os.sched_getaffinity(0))
        deadline = time.monotonic() + timeout_s
        return JobSpec("trial", 0, cell, os.getpid(), "", [cpus], deadline_s=deadline)

    def _start(self, build: TorchBuild, timeout_s: float) -> execute.Ended:
        marker = f"{processes.Process.this()}/trial"
        own = {**execute.LOCALE, **launch.user_site(build, os.environ), "RUNNER_JOB": marker}
        env = {**environment.scrub(os.environ)[0], **own}
        argv = [build.python, str(TRIAL), str(self.folder)]
        stdout, stderr = self.folder / "stdout.log", self.folder / "stderr.log"
        return execute.run(argv, env, stdout, stderr, timeout_s, marker)

    def _result(self, number: int, ended: execute.Ended, timeout_s: float) -> Trial:
        file = self.folder / TRIAL_FILE.format(number)
        try:
            return stored.read(Trial, file, FORMAT)
        except FormatError:
            if ended.timed_out:
                return Trial(f"it was still running after timeout_s={timeout_s:g}")
            lines = stored.log_text(self.folder / "stderr.log").splitlines()
            last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing on stderr")
            return Trial(f"its process ended when it was built or called: {last[:300]}")

    def hand_over(self, candidate: Candidate, sweep: Path) -> None:
        """Give the sweep the reference that a trial computed, if it is the one that the cell needs."""
        file, cell = self._reference_of(candidate), candidate.cell
        if file.exists() and not cell.scenario.is_served:
            kept = references.kept_file(sweep, cell, candidate.identity, cell.inputs)
            kept.parent.mkdir(exist_ok=True)
            shutil.move(file, kept)


def _by_build(candidates: Mapping[str, Candidate]) -> list[dict[str, Candidate]]:
    """The same candidates, those of each torch build together: one process tries them."""
    found: dict[str, dict[str, Candidate]] = {}
    for key, candidate in candidates.items():
        found.setdefault(build_of(candidate.cell.torch).python, {})[key] = candidate
    return list(found.values())


def in_words(waiting: Mapping[str, Candidate]) -> str:
    """What is about to happen to these models."""
    names = list(dict.fromkeys(candidate.cell.model.name for candidate in waiting.values()))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"trying {', '.join(names[:3])}{more}: built and called before the sweep begins"


def _kept(key: str) -> Trial | None:
    try:
        return stored.read(Trial, cache("trials") / f"{key}.json", FORMAT)
    except FormatError:
        return None


def _keep(key: str, trial: Trial) -> None:
    """Keep it for later sweeps; without a place for it, the next one tries again."""
    try:
        folder = cache("trials")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{key}.json", trial)
    except OSError:
        return
