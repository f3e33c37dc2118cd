"""Who hears what a running job has to say: the sweep that started it, if it runs in the sweep's process.

Hydra stands between the sweep and its jobs and hands no objects on, so that the listener is a context variable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Listener(Protocol):
    """What shows how a job gets on."""

    def phase(self, name: str) -> None:
        """A phase of the job begins."""

    def say(self, text: str) -> None:
        """Something happened to the job that its user must know at once."""


class _Lines:
    """The listener of a job that another process started: lines on standard output."""

    def phase(self, name: str) -> None:
        """A log is not for phases."""

    def say(self, text: str) -> None:
        """Print the text."""
        print(f"      {text}", flush=True)


_LINES = _Lines()
_LISTENER: ContextVar[Listener] = ContextVar("listener")


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Let this listener hear the jobs that run within the block."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def phase(name: str) -> None:
    """Say that a phase of the job begins."""
    _LISTENER.get(_LINES).phase(name)


def say(text: str) -> None:
    """Say something about the job in a line."""
    _LISTENER.get(_LINES).say(text)
