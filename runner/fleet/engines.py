"""The engines that place sweeps on hosts, by name: each is a module with the same three functions.

``submit`` starts a sweep on a host and returns the engine's name for it, ``states`` says of the sweeps that are waiting
or running which of the two, and ``cancel`` ends some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from runner.fleet import local, ray, slurm
from runner.fleet.fleetfile import Fleet, Placed
from runner.protocol.errors import RunnerError


class Engine(Protocol):
    """The functions of an engine's module."""

    def submit(self, fleet: Fleet, placed: Placed) -> str:
        """Start a sweep, and return the engine's name for it.

        Raises:
            RunnerError: the engine refused it, or can't be reached.
        """

    def states(self, fleet: Fleet, jobs: Sequence[str]) -> Mapping[str, str]:
        """Job -> ``waiting`` with the reason, or ``running``; a job that is neither is not among them.

        Raises:
            RunnerError: the engine can't be reached.
        """

    def cancel(self, fleet: Fleet, jobs: Sequence[str]) -> None:
        """End these jobs: their sweeps stop as at Ctrl-C.

        Raises:
            RunnerError: the engine can't be reached.
        """


ENGINES: Mapping[str, Engine] = {"slurm": slurm, "ray": ray, "local": local}


def engine_of(name: str) -> Engine:
    """The engine of that name.

    Raises:
        RunnerError: there is none.
    """
    if name not in ENGINES:
        raise RunnerError(f"engine: {name}: choose one of {', '.join(ENGINES)}")
    return ENGINES[name]
