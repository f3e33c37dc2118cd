"""The workload's side of ``perf stat -D -1 --control fifo:CTL,ACK``: it decides which part of a process is counted.

This file knows perf's protocol and nothing else: the workload writes a word and a newline into CTL, and perf answers
``ack`` and a newline in ACK, followed by a 0 byte up to perf 6.1 at least. Source: perf-stat(1), ``--control``; perf
5.10 and later.
"""

from __future__ import annotations

import os
import select
import time
from types import TracebackType


class PerfControl:
    """A control that makes perf count from enable() to disable(), or within ``with PerfControl(ctl, ack): ...``.

    Args:
        ctl: the FIFO from which perf reads its orders.
        ack: the FIFO on which perf answers; nobody else may read it.
        timeout_s: how long an answer may take in seconds; 0.1 ms is usual.
    """

    def __init__(self, ctl: str, ack: str, timeout_s: float = 10.0) -> None:
        self._paths = ctl, ack
        self._timeout_s = timeout_s
        self._open: tuple[int, int] | None = None

    def enable(self) -> None:
        """Start counting. Both FIFOs stay open until disable(), which then takes only a write and a read.

        Raises:
            RuntimeError: the FIFOs don't exist, or perf does not answer in time.
        """
        if self._open:
            raise RuntimeError("perf control: enable() was called twice without disable() in between")
        # Opened for reading and writing, as perf does: then opening never waits for the other side.
        flags = os.O_RDWR | os.O_NONBLOCK
        try:
            ctl = os.open(self._paths[0], flags)
            try:
                ack = os.open(self._paths[1], flags)
            except OSError:
                os.close(ctl)
                raise
        except OSError as error:
            raise RuntimeError(f"perf control: {error.filename} can't be opened: {error.strerror}") from error
        self._open = ctl, ack
        try:
            self._order("enable")
        except BaseException:
            self._close()
            raise

    def disable(self) -> None:
        """Stop counting and close the FIFOs.

        Raises:
            RuntimeError: enable() was not called, or perf does not answer in time.
        """
        try:
            self._order("disable")
        finally:
            self._close()

    def __enter__(self) -> PerfControl:
        self.enable()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.disable()
        except RuntimeError:
            # If the region itself failed, its error is the one to report.
            if error is None:
                raise

    def _order(self, word: str) -> None:
        if self._open is None:
            raise RuntimeError(f"perf control: {word}() was called without enable()")
        ctl, ack = self._open
        os.write(ctl, f"{word}\n".encode())
        deadline, answer = time.monotonic() + self._timeout_s, b""
        while b"ack\n" not in answer:
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0 or not select.select([ack], [], [], remaining_s)[0]:
                raise RuntimeError(
                    f"perf control: no answer to {word} on {self._paths[1]} within {self._timeout_s:g} s: perf has "
                    "ended, has never started, or is older than 5.10; see its own message in the job's stderr"
                )
            answer += os.read(ack, 64)

    def _close(self) -> None:
        for descriptor in self._open or ():
            os.close(descriptor)
        self._open = None
