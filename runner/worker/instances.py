"""Several instances of one job keep together: none is timed before all are warm, none stops before all are timed."""

from __future__ import annotations

import time
from pathlib import Path

from runner.protocol.resultfile import OTHER_FAILED


class Together:
    """Marks in the job's folder, one a point and instance; a single instance waits for nobody."""

    def __init__(self, folder: Path, instance: int, instances: int) -> None:
        self._folder, self._instance, self._instances = folder, instance, instances

    def _mark(self, point: str, instance: int) -> Path:
        return self._folder / f".{point}-{instance}"

    def announce(self, point: str) -> None:
        """Say that this instance is there."""
        if self._instances > 1:
            self._mark(point, self._instance).touch()

    def reached(self, point: str, instance: int) -> bool:
        """Whether that instance has said so."""
        return self._mark(point, instance).exists()

    def all(self, point: str) -> bool:
        """Whether every instance has said so.

        Raises:
            RuntimeError: one has failed, and says why in its own result.
        """
        if any(self.reached("failed", i) for i in range(self._instances)):
            raise RuntimeError(OTHER_FAILED)
        return self._instances == 1 or all(self.reached(point, i) for i in range(self._instances))

    def wait(self, point: str) -> None:
        """Announce, then sleep until all have; see all() for what it raises."""
        self.announce(point)
        while not self.all(point):
            time.sleep(0.005)
