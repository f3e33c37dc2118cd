"""The lock that lets one sweep at a time measure on a host: two at once would each measure the other.

It is an advisory lock (flock(2)) on one file for all users of the host; the kernel frees it when its holder dies,
however that happens. The file names the holder, for people to read.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runner.protocol import stored
from runner.protocol.errors import RunnerError

# RUNNER_LOCK names another file: for tests, and for machines that are cut into parts with nothing in common.
DEFAULT = "/tmp/runner-measurement.lock"  # noqa: S108 - all users are meant to share it


_MOST_BYTES = 16384

# How often a sweep that waits only so long asks for the lock, in seconds.
_PAUSE_S = 0.2

# Anybody who may write to /tmp could put a link there, and the file that it names would be overwritten.
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def _file() -> Path:
    return Path(os.environ.get("RUNNER_LOCK", DEFAULT))


def _open(path: Path) -> int:
    """Open the lock's file, with a descriptor that no child inherits.

    Another user's file below /tmp may be opened, but not with O_CREAT (proc(5), protected_regular).
    """
    try:
        return os.open(path, os.O_RDWR | _SAFELY)
    except FileNotFoundError:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _SAFELY, 0o666)
        os.fchmod(descriptor, 0o666)  # whatever the umask is: the file is everybody's
        return descriptor


@dataclass(frozen=True)
class _Holder:
    """The content of the lock's file."""

    sweep: str
    pid: int
    mlruns: str
    since: str
    until: str = ""
    """When it expects to be done; empty while it can't know."""


# Takes the seconds that the holder will still need; None if it can't know.
Expect = Callable[[float | None], None]


def holder(path: Path | None = None) -> str:
    """Who holds the lock, in words; "another process" if the file can't be read."""
    file = path or _file()
    try:
        content = stored.typed(_Holder, stored.read_json(file, _MOST_BYTES), file)
    except stored.FormatError:
        return "another process"
    # Anybody may have written the file.
    texts = (content.sweep, content.mlruns, content.since, content.until)
    sweep, mlruns, since, until = (text if text.isprintable() else repr(text) for text in texts)
    end = f", until about {until}" if until else ""
    return f"sweep {sweep} (pid {content.pid}, in {mlruns}, since {since}{end})"


@contextmanager
def measuring(sweep: str, mlruns: Path, wait: float | bool, say: Callable[[str], None]) -> Iterator[Expect]:
    """Hold the lock within the block; yields what notes in its file how long the holder will still need.

    Args:
        sweep: id of the sweep, for the message that others see.
        mlruns: the sweep's results folder, for the same message.
        wait: whether to wait for the lock if another process holds it, or for how many seconds at most.
        say: called once with a sentence before a wait.

    Raises:
        RunnerError: another process holds the lock for longer than ``wait`` allows, or the lock's file can't be opened.
    """
    path = _file()
    try:
        descriptor = _open(path)
    except OSError as error:
        raise RunnerError(
            f"RUNNER_LOCK={path}: the host's measurement lock can't be opened ({error.strerror}); name a file that "
            "all users who measure on this host may write"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait is False:
                raise RunnerError(
                    f"wait=false: {holder(path)} is measuring on this host; try again later, or leave the option out, "
                    "so that the sweep waits"
                ) from None
            say(f"waiting for {holder(path)}: two sweeps at once would measure each other")
            if wait is True:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            else:
                _lock_within(descriptor, path, wait)
        own = _Holder(sweep, os.getpid(), str(mlruns.resolve()), time.strftime("%Y-%m-%d %H:%M:%S"))

        def expect(left_s: float | None) -> None:
            until = "" if left_s is None else time.strftime("%H:%M", time.localtime(time.time() + left_s))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(replace(own, until=until))).encode(), 0)

        expect(None)
        yield expect
    finally:
        os.close(descriptor)


def _lock_within(descriptor: int, path: Path, seconds: float) -> None:
    """Wait for the lock for so many seconds at most."""
    end = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise RunnerError(
                    f"wait={seconds:g}: {holder(path)} is still measuring on this host after {seconds:g} s; try again "
                    "later, or leave the option out, so that the sweep waits as long as it takes"
                ) from None
            time.sleep(_PAUSE_S)
