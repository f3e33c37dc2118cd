"""One sweep measures at a time on a host: two at once would each measure the other.

An advisory lock (flock(2)) on one file for all users of the host; the kernel frees it when its holder dies, however
that happens. Who holds it stands in the file, for people.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from runner.protocol import stored
from runner.protocol.errors import RunnerError

# RUNNER_LOCK names another file: for tests, and for machines that are cut into parts with nothing in common.
DEFAULT = "/tmp/runner-measurement.lock"  # noqa: S108 - one for all users is what it is for


_MOST_BYTES = 16384

# What this process has: a sweep's jobs that run in the sweep's own process ask again.
_held: set[Path] = set()


# Whoever may write to /tmp could have put a link there, and what it names would be overwritten.
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def _file() -> Path:
    return Path(os.environ.get("RUNNER_LOCK", DEFAULT))


def _open(path: Path) -> int:
    """A descriptor that no child inherits. Another user's file below /tmp may be opened, but not with O_CREAT."""
    try:
        return os.open(path, os.O_RDWR | _SAFELY)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _SAFELY, 0o666)
        os.fchmod(descriptor, 0o666)  # whatever the umask: it is everybody's
        return descriptor


@dataclass(frozen=True)
class _Holder:
    """What stands in the file."""

    sweep: str
    pid: int
    mlruns: str
    since: str


def holder(path: Path | None = None) -> str:
    """Who has the lock, in words; what can't be read is nobody known."""
    file = path or _file()
    try:
        found = stored.typed(_Holder, stored.read_json(file, _MOST_BYTES), file)
    except stored.FormatError:
        return "another process"
    # Anybody may have written it.
    words = [word if word.isprintable() else repr(word) for word in (found.sweep, found.mlruns, found.since)]
    return "sweep {} (pid {}, in {}, since {})".format(words[0], found.pid, *words[1:])


@contextmanager
def measuring(sweep: str, mlruns: Path, wait: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Have the host to oneself inside; ``say`` is called once, before a wait. Nothing to do in a process that has it.

    Raises:
        RunnerError: somebody else has it and ``wait`` is false, or the lock's file can't be opened.
    """
    path = _file()
    if path in _held:
        yield
        return
    try:
        descriptor = _open(path)
    except OSError as error:
        raise RunnerError(
            f"RUNNER_LOCK={path}: the host's measurement lock can't be opened ({error.strerror}); name a file that "
            "everybody who measures here may write"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise RunnerError(
                    f"wait=false: {holder(path)} is measuring on this host; try again later, or leave the option out"
                ) from None
            say(f"waiting for {holder(path)}: two sweeps at once would measure each other")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        known = _Holder(sweep, os.getpid(), str(mlruns), time.strftime("%Y-%m-%d %H:%M:%S"))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(known)).encode(), 0)
        _held.add(path)
        yield
    finally:
        _held.discard(path)
        os.close(descriptor)
