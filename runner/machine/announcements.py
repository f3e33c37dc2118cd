"""The runner's side of what workers announce: FIFOs that are read in the one wait for the end of a job."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from runner.protocol.announcements import HEARD, PHASES

# The longest name of a phase; a model's code may write anything.
_LONGEST = 40


class Announcements:
    """What the workers of one job announce; made by `listening`."""

    def __init__(self, names: int, answers: int, hear: Callable[[str], None]) -> None:
        self._names, self._answers, self._hear = names, answers, hear
        self._rest = b""

    def fileno(self) -> int:
        """The descriptor that becomes readable when there is something to hear."""
        return self._names

    def take(self) -> None:
        """Hand on what was announced, then answer it."""
        try:
            *lines, rest = (self._rest + os.read(self._names, 4096)).split(b"\n")
        except BlockingIOError:
            return
        self._rest = rest[:_LONGEST]
        for name in _names(lines):
            self._hear(name)
        with suppress(BlockingIOError):  # nobody reads the answers
            os.write(self._answers, b"".join(line[:1] for line in lines))


def _names(lines: Sequence[bytes]) -> Iterator[str]:
    for line in lines:
        name = line.decode(errors="replace")
        if name.isidentifier() and len(name) <= _LONGEST:
            yield name


@contextmanager
def listening(folder: Path, hear: Callable[[str], None]) -> Iterator[Announcements]:
    """Make the FIFOs in a job's private folder, and listen.

    Args:
        hear: is called with the name of each phase, while the runner waits for the end of a job.
    """
    opened: list[int] = []
    try:
        for name, flags in ((PHASES, os.O_RDONLY), (PHASES, os.O_WRONLY), (HEARD, os.O_RDWR)):
            # One writer is ours: without any, poll(2) would not wait.
            if not (folder / name).exists():
                os.mkfifo(folder / name, 0o600)
            opened.append(os.open(folder / name, flags | os.O_NONBLOCK | os.O_CLOEXEC))
        yield Announcements(opened[0], opened[2], hear)
    finally:
        for descriptor in opened:
            os.close(descriptor)
