"""A worker does not outlive its runner, and says where it hung. Neither wakes up while the worker measures."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import sys
import threading
import time

# Before the runner stops a job that takes too long: the time to write down what every thread is doing.
_BEFORE_S = 1.0


def die_with(pid: int) -> None:
    """Kill this process when ``pid`` ends. One thread, blocked in poll(2) on a pidfd until then: no timer, no GIL."""

    def end() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def watch(descriptor: int) -> None:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        poller.poll()
        end()

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        end()
        return
    except OSError:
        return  # a kernel without pidfds: the next sweep finds what is left
    threading.Thread(target=watch, args=(descriptor,), name="watch", daemon=True).start()


def say_where_it_hangs(deadline_s: float) -> None:
    """Every thread's stack on stderr, so long before the runner stops the job (CLOCK_MONOTONIC).

    faulthandler's own thread sleeps till then, and writes even when Python's lock is held.
    """
    left_s = deadline_s - time.monotonic() - _BEFORE_S
    if left_s > 0:
        faulthandler.dump_traceback_later(left_s, file=sys.stderr)


def mark_crashes() -> None:
    """A segfault and its like leave the stack on stderr."""
    faulthandler.enable(file=sys.stderr)
