"""The interface that a server needs in order to be measured. Each server is one module; TorchServe is the first."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runner.protocol.cell import Cell
from runner.protocol.errors import RunnerError
from runner.protocol.jobfile import JobSpec

# The number of ports that every server gets for itself.
PORTS = 5


class ServingError(RunnerError):
    """The server did not start, did not become ready, or did not answer; the message says why in one sentence."""


@dataclass(frozen=True)
class Site:
    """One server of one job; it shares nothing with the server of another job."""

    cell: Cell
    job: JobSpec
    """The job file of its worker."""
    private: Path
    """The private folder: configuration, archive, sockets, temporary files. It is removed afterwards."""
    logs: Path
    """The folder of its logs, which are kept."""
    ports: tuple[int, ...]
    python: str
    """The path of the worker's Python interpreter."""
    launcher_args: Sequence[str]
    """The arguments of its worker's launcher: cores, allocator."""
    timeout_s: float
    """The seconds that the whole job may take."""

    @property
    def remaining_s(self) -> float:
        """The seconds that remain of them; never less than 0.1, so that it can be used as a timeout."""
        return max(self.job.deadline_s - time.monotonic(), 0.1)


class Server(Protocol):
    """The life of one kind of server except for its process, which runner.job.serving.session starts and ends."""

    def write(self, site: Site) -> None:
        """Write the configuration and the model archive."""

    def command(self, site: Site) -> Sequence[str]:
        """The command that runs the server in the foreground."""

    def environment(self, site: Site) -> Mapping[str, str]:
        """The environment variables that it needs in addition to the job's."""

    def is_up(self, site: Site) -> bool:
        """Whether the server answers."""

    def start_worker(self, site: Site) -> int:
        """Load the model in one worker, wait until the worker takes requests, and return its process id.

        Raises:
            ServingError: the model can't be loaded.
        """

    def url(self, site: Site) -> str:
        """The address to which requests are posted."""

    def order(self, site: Site, body: bytes) -> None:
        """Post an order (runner.protocol.jobfile.BEGIN, END) to the worker, and wait until it is done.

        Raises:
            ServingError: the worker did not do it.
        """

    def figures(self, site: Site, requests: int, batches: int) -> Mapping[str, float]:
        """The server's own metrics of the last requests and batches before END, as ``serving/*``.

        A metric that the server did not log for all of them is unobserved and left out.
        """

    def failure_reason(self, site: Site) -> str | None:
        """The line of its logs that says why it failed; None if none does."""
