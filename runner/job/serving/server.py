"""What a server must do to be measured: the whole interface. One module a server; TorchServe is the first."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runner.matrix.cell import Cell
from runner.protocol.errors import RunnerError
from runner.protocol.jobfile import JobSpec

# Every server gets so many ports of its own.
PORTS = 5


class ServingError(RunnerError):
    """The server did not start, did not become ready, or did not answer: why, in one sentence."""


@dataclass(frozen=True)
class Site:
    """One server of one job: nothing of it is shared with another's."""

    cell: Cell
    job: JobSpec
    """What its worker is told."""
    private: Path
    """A folder with a short path, gone afterwards: configuration, archive, sockets, temporary files."""
    logs: Path
    """A folder that stays."""
    ports: tuple[int, ...]
    python: str
    """The interpreter of the worker."""
    launcher_args: Sequence[str]
    """What the launcher of its worker is told: cores, allocator."""
    timeout_s: float
    """Of the whole job."""

    @property
    def left_s(self) -> float:
        """Of it, from now on; never less than a moment, so that it can be waited for."""
        return max(self.job.deadline_s - time.monotonic(), 0.1)


class Server(Protocol):
    """Life of one kind of server, but for its process: runner.job.serving.session starts and ends that."""

    def write(self, site: Site) -> None:
        """Write configuration and model archive."""

    def command(self, site: Site) -> Sequence[str]:
        """What to start, in the foreground."""

    def environment(self, site: Site) -> Mapping[str, str]:
        """What it needs in the environment, beside the job's."""

    def is_up(self, site: Site) -> bool:
        """Whether it answers."""

    def start_worker(self, site: Site) -> int:
        """Load the model in one worker and wait until that takes requests; its process.

        Raises:
            ServingError: it can't.
        """

    def url(self, site: Site) -> str:
        """Where requests are posted."""

    def order(self, site: Site, body: bytes) -> None:
        """Post an order (runner.protocol.jobfile.BEGIN, END) to the worker, and wait until it is done.

        Raises:
            ServingError: it was not.
        """

    def figures(self, site: Site, requests: int, batches: int) -> Mapping[str, float]:
        """Its own metrics of the last so many requests and batches before END, as ``serving/*``; absent: unobserved."""

    def why(self, site: Site) -> str | None:
        """What its logs say of a failure, in one line; None when nothing."""
