"""Recording that costs no measurement: MLflow may be away, locked or full, and a sweep goes on.

What could not be recorded is in the sweep's folder; ``catch_up()`` records it, at the end of the sweep, at the start
of the next or by ``python -m runner import DIR``.
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
from runner.results.outcome import OUTCOME_FILE, numbers
from runner.tracking.store import LOGGED, Store, UnavailableError

# Seconds before the second, third, ... try of a server that may well answer a moment later; between jobs nobody is
# measured. SQLite needs none: MLflow has it wait 20 s for a lock.
_SOON = (0.5, 1.0, 2.0)
# After that MLflow is left alone so long, then twice as long, and so on.
_LATER_S, _LATEST_S = 15.0, 300.0

Found = TypeVar("Found")


class Recorder:
    """A store that is asked patiently, and not at all for a while when that did not help."""

    def __init__(self, store: Store, soon: Sequence[float]) -> None:
        self.store = store
        self._soon = soon
        self._pause_s = _LATER_S
        self._ask_again_at = 0.0
        self._has_missed = False

    def attempt(self, what: Callable[[Store], Found]) -> Found | None:
        """Do something with the store; None when MLflow can't be used now, which is said once."""
        if time.monotonic() < self._ask_again_at:
            self._has_missed = True
            return None
        try:
            found = self.insist(what)
        except UnavailableError as error:
            if not self._ask_again_at:
                print(f"  note {error}; the sweep goes on, its files are kept and recorded later", flush=True)
            self._has_missed = True
            self._ask_again_at = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LATEST_S)
            return None
        self._pause_s, self._ask_again_at = _LATER_S, 0.0
        return found

    def insist(self, what: Callable[[Store], Found]) -> Found:
        """Do something with the store, a few times if need be.

        Raises:
            UnavailableError: it did not work at last.
        """
        for pause_s in self._soon:
            try:
                with self.store.reaching():
                    return what(self.store)
            except UnavailableError:
                time.sleep(pause_s)
        with self.store.reaching():
            return what(self.store)

    def finish(self, sweep: Path) -> dict[str, str]:
        """End a sweep's record; first record what could not be recorded while it ran. What is shown -> link.

        Raises:
            UnavailableError: MLflow can't be used now.
        """
        if self._has_missed or _is_behind(sweep):
            return self.catch_up(sweep)
        return self._close(sweep)

    def _close(self, sweep: Path) -> dict[str, str]:
        self.insist(lambda store: store.close_sweep(sweep))
        links = self.insist(lambda store: store.save_views(sweep))
        ledger.recorded(sweep)
        return links

    def tidy(self, own: Path, host_id: str) -> Iterator[str]:
        """Record what earlier sweeps of this host could not; end those that were killed. A line for each.

        Args:
            own: the folder of the sweep that asks.
        """
        believed = self.attempt(lambda store: store.left_open(host_id)) or {}
        left = {path.parent for path in (self.store.root / "sweeps").glob(f"*/{ledger.OPEN_FILE}")}
        for sweep in sorted(left | set(believed)):
            try:
                entry = ledger.read_sweep(sweep)
            except RunnerError:
                if sweep in believed:  # its folder is gone
                    run_id = believed[sweep]
                    self.attempt(lambda store, run_id=run_id: store.abandon(run_id))  # type: ignore[misc]
                continue
            if sweep == own or entry.host_id != host_id or Process.of(entry.runner).is_alive:
                continue
            try:
                links = self.attempt(lambda _, sweep=sweep: self.catch_up(sweep))  # type: ignore[misc]
            except FormatError as error:  # damaged, which is no reason for the next one not to run
                yield f"sweep {sweep.name} can't be recorded: {error}"
                continue
            if links is None:
                continue
            was_killed = ledger.read_end(sweep) is None
            go_on = f"was killed; to go on with it: python -m runner resume {sweep.name}"
            yield f"sweep {sweep.name} {go_on if was_killed else 'is in MLflow now'}"

    def catch_up(self, sweep: Path) -> dict[str, str]:
        """Record all of a sweep that MLflow lacks; what is shown of it -> link.

        Raises:
            UnavailableError: MLflow can't be used now.
            RunnerError: the folder holds no sweep.
        """
        end = ledger.read_end(sweep)
        is_complete = end is not None and end.status != Status.KILLED
        self.store.forget()
        self.insist(lambda store: store.open_sweep(sweep))
        for cell in ledger.read_cells(sweep):
            self._cell(sweep, cell.cell_id, is_complete)
        return self._close(sweep)

    def _cell(self, sweep: Path, cell_id: str, is_complete: bool) -> None:
        ended = numbers(sweep, cell_id)
        if not ended:
            return
        self.insist(lambda store: store.start_cell(sweep, cell_id))
        for number in ended:
            if not self.store.has_logged(sweep, cell_id, number):
                self.insist(lambda store, number=number: store.log_job(sweep, cell_id, number))  # type: ignore[misc]
        self.insist(lambda store: store.end_cell(sweep, cell_id, is_complete))


def _is_behind(sweep: Path) -> bool:
    """Whether a job of it is not recorded: one that ran in another process could not say so."""
    return any(not job.with_name(LOGGED).exists() for job in sweep.glob(f"cells/*/round-*/{OUTCOME_FILE}"))


@functools.cache
def of(mlruns: Path, tracking_uri: str | None) -> Recorder:
    """The one of this process for these results: the jobs of a sweep that run in its process share it."""
    return Recorder(Store(mlruns, tracking_uri), _SOON if tracking_uri else ())
