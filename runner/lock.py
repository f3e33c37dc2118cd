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
from pathlib import Path

from runner.errors import RunnerError

# RUNNER_LOCK names another file: for tests, and for machines that are cut into parts with nothing in common.
DEFAULT = "/tmp/runner-measurement.lock"  # noqa: S108 - one for all users is what it is for


def _file() -> Path:
    return Path(os.environ.get("RUNNER_LOCK", DEFAULT))


def _open(path: Path) -> int:
    """A descriptor that no child inherits. Another user's file below /tmp may be opened, but not with O_CREAT."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        os.fchmod(descriptor, 0o666)  # whatever the umask: it is everybody's
        return descriptor


def holder(path: Path | None = None) -> str:
    """Who has the lock, in words; what can't be read is nobody known."""
    try:
        found = json.loads((path or _file()).read_text(encoding="utf-8"))
        return f"sweep {found['sweep']} (pid {int(found['pid'])}, in {found['mlruns']}, since {found['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


@contextmanager
def measuring(sweep: str, mlruns: Path, wait: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Have the host to oneself inside; ``say`` is called once, before a wait.

    Raises:
        RunnerError: somebody else has it and ``wait`` is false, or the lock's file can't be opened.
    """
    path = _file()
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
        known = {"sweep": sweep, "pid": os.getpid(), "mlruns": str(mlruns), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(known).encode(), 0)
        yield
    finally:
        os.close(descriptor)
