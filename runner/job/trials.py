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
        builds = {build.python: build for c in waiting.values() for build in [build_of(c.cell.torch)]}
        for build in builds.values():
            own = {key: c for key, c in waiting.items() if build_of(c.cell.torch).python == build.python}
            for number, candidate in enumerate(own.values()):
                write_json(self.folder / JOB_FILE.format(number), self._job(candidate.cell, timeout_s))
            ended = self._start(build, timeout_s)
            for number, (key, candidate) in enumerate(own.items()):
                trials[key] = self._taken(number, key, candidate, ended, timeout_s)
            for left in self.folder.glob("*.json"):
                left.unlink()
        return trials

    def _taken(self, number: int, key: str, candidate: Candidate, ended: execute.Ended, timeout_s: float) -> Trial:
        """The result of one trial, which is kept with its reference if the model has passed."""
        trial = self._result(number, ended, timeout_s)
        if trial.problem is None:
            _keep(key, trial)
            cell = replace(candidate.cell, sequence_length=trial.sequence_length)
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
