"""Recording that costs no measurement: it waits until a job imports its torch, and when MLflow can't be reached, is
locked or is full, the sweep goes on.

What could not be recorded is in the sweep's folder. ``catch_up()`` records it: at the end of the sweep, at the start
of the next one, or by ``python -m runner import DIR``.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from runner.machine.processes import Process
from runner.protocol.errors import RunnerError
from runner.protocol.stored import FormatError
from runner.protocol.verdicts import Status
from runner.results import ledger
from runner.results.command_lines import resume_line
from runner.results.outcome import OUTCOME_FILE, captures_job, ended_rounds, job_folder
from runner.tracking.connection import UnavailableError
from runner.tracking.store import LOGGED, Store

# Seconds before the second, third, ... attempt at a server that may well answer a moment later. Nothing is measured
# between jobs. SQLite needs no such pauses: MLflow lets it wait 20 s for a lock.
_SERVER_PAUSES_S = (0.5, 1.0, 2.0)
# After those attempts MLflow is left alone for this many seconds, then for twice as long, and so on up to the limit.
_FIRST_BREAK_S, _LONGEST_BREAK_S = 15.0, 300.0

Answer = TypeVar("Answer")


class Recorder:
    """A store that is asked patiently, and left alone for a while when that did not help.

    Args:
        store: what records.
        pauses_s: seconds to wait before each further attempt of one call.
    """

    def __init__(self, store: Store, pauses_s: Sequence[float]) -> None:
        self.store = store
        self._pauses_s = pauses_s
        self._break_s = _FIRST_BREAK_S
        self._ask_again_at = 0.0
        self._has_missed = False
        self._later: list[Callable[[Store], object]] = []

    def later(self, action: Callable[[Store], object]) -> None:
        """Do something with the store when there is time for it: at the next `settle`, or before the next `attempt`."""
        self._later.append(action)

    def settle(self) -> None:
        """Do what was left for later, in order, each as `attempt` does it."""
        while self._later:
            self._attempt(self._later.pop(0))

    def attempt(self, action: Callable[[Store], Answer]) -> Answer | None:
        """Do something with the store; None when MLflow can't be used now, of which the user is told once."""
        self.settle()
        return self._attempt(action)

    def _attempt(self, action: Callable[[Store], Answer]) -> Answer | None:
        if time.monotonic() < self._ask_again_at:
            self._has_missed = True
            return None
        try:
            answer = self.insist(action)
        except UnavailableError as error:
            if not self._ask_again_at:
                print(f"  note {error}; the sweep goes on, its files are kept and recorded later", flush=True)
            self._has_missed = True
            self._ask_again_at = time.monotonic() + self._break_s
            self._break_s = min(2 * self._break_s, _LONGEST_BREAK_S)
            return None
        self._break_s, self._ask_again_at = _FIRST_BREAK_S, 0.0
        return answer

    def insist(self, action: Callable[[Store], Answer]) -> Answer:
        """Do something with the store, in a few attempts if need be.

        Raises:
            UnavailableError: the last attempt failed as well.
        """
        for pause_s in self._pauses_s:
            try:
                with self.store.translated_errors():
                    return action(self.store)
            except UnavailableError:
                time.sleep(pause_s)
        with self.store.translated_errors():
            return action(self.store)

    def finish(self, sweep: Path) -> dict[str, str]:
        """End a sweep's record, after recording what could not be recorded while it ran.

        Returns:
            What each page shows -> its link.

        Raises:
            UnavailableError: MLflow can't be used now.
        """
        self.settle()
        if self._has_missed or _has_unlogged_jobs(sweep):
            return self.catch_up(sweep)
        return self._close(sweep)

    def _close(self, sweep: Path) -> dict[str, str]:
        self.insist(lambda store: store.close_sweep(sweep))
        links = self.insist(lambda store: store.save_views(sweep))
        ledger.mark_recorded(sweep)
        return links

    def unrecorded_sweeps(self) -> set[Path]:
        """The folders of sweeps here that MLflow does not have whole: of those that run, too."""
        return {path.parent for path in (self.store.root / "sweeps").glob(f"*/{ledger.OPEN_FILE}")}

    def finish_earlier_sweeps(self, own: Path, host_id: str) -> Iterator[str]:
        """Record what earlier sweeps of this host could not record, and end the runs of those that were killed.

        Args:
            own: the folder of the sweep that asks, which is left alone.

        Yields:
            One line for the user per sweep.
        """
        running = self.attempt(lambda store: store.running_sweeps(host_id)) or {}
        for sweep in sorted(self.unrecorded_sweeps() | set(running)):
            try:
                entry = ledger.read_sweep(sweep)
            except RunnerError:
                if sweep in running:  # its folder is gone
                    run_id = running[sweep]
                    self.attempt(lambda store, run_id=run_id: store.abandon_sweep(run_id))  # type: ignore[misc]
                continue
            if sweep == own or entry.host_id != host_id or Process.of(entry.runner).is_alive:
                continue
            try:
                links = self.attempt(lambda _, sweep=sweep: self.catch_up(sweep))  # type: ignore[misc]
            except FormatError as error:  # a damaged sweep does not keep the next one from running
                yield f"sweep {sweep.name} can't be recorded: {error}"
                continue
            if links is None:
                continue
            was_killed = ledger.read_end(sweep) is None
            next_step = f"was killed; to go on with it: {resume_line(sweep)}"
            yield f"sweep {sweep.name} {next_step if was_killed else 'is in MLflow now'}"

    def catch_up(self, sweep: Path) -> dict[str, str]:
        """Record everything about a sweep that MLflow does not have yet.

        Returns:
            What each page shows -> its link.

        Raises:
            UnavailableError: MLflow can't be used now.
            RunnerError: the folder holds no sweep.
        """
        end = ledger.read_end(sweep)
        is_complete = end is not None and end.status != Status.KILLED
        self.store.forget_runs()
        self.insist(lambda store: store.open_sweep(sweep))
        for cell in ledger.read_cells(sweep):
            self._record_cell(sweep, cell.cell_id, is_complete)
        return self._close(sweep)

    def _record_cell(self, sweep: Path, cell_id: str, is_complete: bool) -> None:
        rounds = ended_rounds(sweep, cell_id)
        if not rounds:
            return
        self.insist(lambda store: store.start_cell(sweep, cell_id))
        for number in rounds:
            if not self.store.has_logged(sweep, cell_id, job_folder(sweep, cell_id, number)):
                self.insist(lambda store, number=number: store.log_job(sweep, cell_id, number))  # type: ignore[misc]
        captures = captures_job(sweep, cell_id)
        if (captures / OUTCOME_FILE).exists() and not self.store.has_logged(sweep, cell_id, captures):
            self.insist(lambda store: store.log_captures(sweep, cell_id))
        self.insist(lambda store: store.end_cell(sweep, cell_id, is_complete))


def _has_unlogged_jobs(sweep: Path) -> bool:
    """Whether MLflow lacks a job of this sweep, such as one that ran in another process and could not be logged."""
    return any(not job.with_name(LOGGED).exists() for job in sweep.glob(f"cells/*/*/{OUTCOME_FILE}"))


@functools.cache
def recorder_for(mlruns: Path, tracking_uri: str | None) -> Recorder:
    """This process's recorder for these results; the sweep shares it with the jobs that run in its process."""
    return Recorder(Store(mlruns, tracking_uri), _SERVER_PAUSES_S if tracking_uri else ())
