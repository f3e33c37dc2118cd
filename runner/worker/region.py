"""The workload's side of ``perf stat -D -1 --control fifo:CTL,ACK``: which stretch of the process is counted.

Apart from the measuring loop because it knows perf's protocol and nothing else. Protocol: one word and a newline into
CTL; perf answers ``ack`` and a newline into ACK, followed by a 0 byte up to perf 6.1 at least. Source: perf-stat(1),
``--control``; perf 5.10 and later.
"""

from __future__ import annotations

import os
import select
import time
from types import TracebackType


class PerfControl:
    """Counting from enable() to disable(), also as ``with PerfControl(ctl, ack): ...``.

    Args:
        ctl: the FIFO perf reads its orders from.
        ack: the FIFO perf answers on; nobody else may read it.
        timeout_s: how long an answer may take; usual is 0.1 ms.
    """

    def __init__(self, ctl: str, ack: str, timeout_s: float = 10.0) -> None:
        self._paths = ctl, ack
        self._timeout_s = timeout_s
        self._open: tuple[int, int] | None = None

    def enable(self) -> None:
        """Start counting. Both FIFOs stay open until disable(), which is thus as short as a write and a read.

        Raises:
            RuntimeError: the FIFOs are not there, or perf does not answer in time.
        """
        if self._open:
            raise RuntimeError("perf control: enable() twice without disable() between")
        # For reading and writing, as perf opens them itself: opening never waits for the other side then.
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
            # What went wrong inside the region is the news, not that perf went with it.
            if error is None:
                raise

    def _order(self, word: str) -> None:
        if self._open is None:
            raise RuntimeError(f"perf control: {word}() without enable()")
        ctl, ack = self._open
        os.write(ctl, f"{word}\n".encode())
        deadline, answer = time.monotonic() + self._timeout_s, b""
        while b"ack\n" not in answer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([ack], [], [], left)[0]:
                raise RuntimeError(
                    f"perf control: no answer to {word} on {self._paths[1]} within {self._timeout_s:g} s: perf has "
                    f"ended, never started, or is older than 5.10; its own message is in the job's stderr"
                )
            answer += os.read(ack, 64)

    def _close(self) -> None:
        for descriptor in self._open or ():
            os.close(descriptor)
        self._open = None
