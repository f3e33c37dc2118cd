"""How long each phase of a worker took, which shows where the time of a sweep goes; and what the runner hears of it."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.protocol.announcements import ANSWER_S, HEARD, MEASURE, MEASURE_AGAIN, PHASES


class Phases:
    """The wall time of each phase in seconds, by the phase's name.

    Args:
        private: the job's private folder. Where it has the FIFOs of runner.protocol.announcements, each phase is
            announced at its beginning, and nothing is written within one.
    """

    def __init__(self, private: str = "") -> None:
        self.seconds: dict[str, float] = {}
        self._announced = ""
        self._fifos: tuple[int, int] | None = None
        with suppress(OSError):  # a job that is repeated by hand has no runner to listen
            names = os.open(Path(private) / PHASES, os.O_WRONLY | os.O_NONBLOCK)
            self._fifos = names, os.open(Path(private) / HEARD, os.O_RDONLY | os.O_NONBLOCK)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Announce and time the block under ``name``."""
        if name != self._announced:
            self.announce(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start

    def announce(self, name: str) -> None:
        """Tell the runner that a phase begins; before MEASURE, wait until it has shown that and sleeps again."""
        self._announced = name
        if self._fifos is None:
            return
        names, heard = self._fifos
        try:
            os.write(names, f"{name}\n".encode())
            end = time.monotonic() + ANSWER_S
            # One byte at a time: the answers to other instances are in the same FIFO.
            is_timed = name in (MEASURE, MEASURE_AGAIN)
            while is_timed and select.select([heard], [], [], max(end - time.monotonic(), 0.0))[0]:
                with suppress(BlockingIOError):  # another instance took the answer that was seen
                    if os.read(heard, 1) == MEASURE[:1].encode():
                        break
        except OSError:  # the runner is gone, or does not read: it does not matter to what is measured
            self._fifos = None
