"""How a user, a system or a lost terminal stops the sweep of this process: politely once, at once the second time."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from types import FrameType

from runner.machine.processes import Process, processes_with_marker

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Signals closer together than this are one request.
_ONE_REQUEST_S = 0.2


class _Requests:
    """How often the sweep of this process has been asked to stop; handlers of signals have no other place for it."""

    count = 0
    last_s = 0.0
    is_shielded = False
    farewell = ""


def listen(farewell: str) -> None:
    """From now on, make the first of STOPS raise KeyboardInterrupt and a second one end everything at once.

    Args:
        farewell: the line that is printed when a second signal ends everything.
    """
    _Requests.count, _Requests.farewell = 0, farewell
    for number in STOPS:
        signal.signal(number, _on_stop)


def is_asked() -> bool:
    """Whether this process has been asked to stop; a KeyboardInterrupt that was raised in a destructor is lost."""
    return _Requests.count > 0


def check() -> None:
    """Stop here if this process has been asked to.

    Raises:
        KeyboardInterrupt: it has been.
    """
    if is_asked():
        raise KeyboardInterrupt


def caused(error: BaseException) -> bool:
    """Whether an error comes of a request to stop.

    KeyboardInterrupt is raised wherever the program happens to be: inside a library it may come out as an error of that
    library's.
    """
    return isinstance(error, KeyboardInterrupt) or is_asked()


def _on_stop(number: int, frame: FrameType | None) -> None:
    now_s = time.monotonic()
    # timeout(1) and a terminal that closes send two signals for one request.
    if _Requests.count and now_s - _Requests.last_s < _ONE_REQUEST_S:
        return
    _Requests.count, _Requests.last_s = _Requests.count + 1, now_s
    if _Requests.count > 1:
        for pid in processes_with_marker(f"{Process.this()}/", is_prefix=True):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        print(f"\n{_Requests.farewell}", flush=True)
        os._exit(130)
    if not _Requests.is_shielded:
        raise KeyboardInterrupt(f"signal {number}")


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Delay a first signal until the end of the block; a second one still ends everything at once.

    Raises:
        KeyboardInterrupt: at the end of the block, if a signal arrived within it.
    """
    previous = {number: signal.signal(number, _on_stop) for number in STOPS}
    before, _Requests.is_shielded = _Requests.count, True
    try:
        yield
    finally:
        _Requests.is_shielded = False
        for number, handler in previous.items():
            signal.signal(number, handler)
    if _Requests.count > before:
        raise KeyboardInterrupt("while a job was ended")
