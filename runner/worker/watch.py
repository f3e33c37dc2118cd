"""A worker ends with its runner, and reports where it hangs. Nothing of this wakes up while the worker measures."""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import sys
import threading
import time

# The stacks of all threads are written this long before the runner stops a job that takes too long.
_BEFORE_S = 1.0


def die_with(pid: int) -> None:
    """Kill this process when ``pid`` ends; until then a thread blocks in poll(2) on a pidfd, without timer or GIL."""

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
        return  # a kernel without pidfds: the next sweep ends the orphans
    threading.Thread(target=watch, args=(descriptor,), name="watch", daemon=True).start()


def end_this_process() -> None:
    """End this process at once, with all its threads, whatever has started it."""
    os._exit(1)


def say_where_it_hangs(deadline_s: float) -> None:
    """Write every thread's stack to stderr shortly before ``deadline_s`` (CLOCK_MONOTONIC), when the job is stopped.

    faulthandler's own thread sleeps until then, and writes even if Python's lock is held.
    """
    delay_s = deadline_s - time.monotonic() - _BEFORE_S
    if delay_s > 0:
        faulthandler.dump_traceback_later(delay_s, file=sys.stderr)


def mark_crashes() -> None:
    """Make a segmentation fault and similar crashes write the stack to stderr."""
    faulthandler.enable(file=sys.stderr)
