"""The barrier between the instances of a job: none is timed before all are warm, none stops before all are timed."""

from __future__ import annotations

import time
from pathlib import Path

from runner.protocol.resultfile import OTHER_FAILED


class Barrier:
    """The points that each instance has reached, as files in the job's folder; a single instance never waits."""

    def __init__(self, folder: Path, instance: int, instances: int) -> None:
        self._folder, self._instance, self._instances = folder, instance, instances

    def _mark(self, point: str, instance: int) -> Path:
        return self._folder / f".{point}-{instance}"

    def announce(self, point: str) -> None:
        """Tell the other instances that this one has reached the point."""
        if self._instances > 1:
            self._mark(point, self._instance).touch()

    def has_reached(self, point: str, instance: int) -> bool:
        """Whether that instance has reached the point."""
        return self._mark(point, instance).exists()

    def all_reached(self, point: str) -> bool:
        """Whether every instance has reached the point.

        Raises:
            RuntimeError: an instance has failed; its own result says why.
        """
        if any(self.has_reached("failed", i) for i in range(self._instances)):
            raise RuntimeError(OTHER_FAILED)
        return self._instances == 1 or all(self.has_reached(point, i) for i in range(self._instances))

    def wait(self, point: str) -> None:
        """Announce the point, then sleep until all instances have reached it.

        Raises:
            RuntimeError: see all_reached().
        """
        self.announce(point)
        while not self.all_reached(point):
            time.sleep(0.005)
