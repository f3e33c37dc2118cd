"""A run of toplev around a program: its FIFOs, its files, and its verdict. Nothing is started here."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.capture import toplev
from runner.protocol import stored
from runner.protocol.captures import Region

SCRIPT = toplev.script(Path(sys.prefix))


@dataclass(frozen=True)
class Run:
    """The folders of a run of toplev."""

    private: Path
    """The folder for the two FIFOs; its path must have no comma, because perf would split it there."""
    results: Path
    """The folder for toplev's table and perf's raw counts."""

    @property
    def region(self) -> Region:
        """The FIFOs, as the workload's PerfControl takes them."""
        return Region(ctl=str(self.private / "ctl"), ack=str(self.private / "ack"))

    def wrap(self, argv: Sequence[str], level: int) -> tuple[str, ...]:
        """Make the FIFOs, and return the command that runs ``argv`` and counts only where ``argv`` asks for it."""
        self.private.mkdir(parents=True, exist_ok=True)
        self.results.mkdir(parents=True, exist_ok=True)
        for old in (self._csv, self._raw):  # a toplev that fails early would leave them in place
            old.unlink(missing_ok=True)
        ctl, ack = Path(self.region.ctl), Path(self.region.ack)
        for path in (ctl, ack):
            os.mkfifo(path)
        return toplev.command(sys.executable, SCRIPT, level, self._csv, self._raw, ctl, ack, argv)

    def read(self, stderr: str, returncode: int) -> toplev.TopDown:
        """The figures of the run, if they can be believed.

        Raises:
            toplev.Rejected: they can't; the message says why.
            FormatError: a file of the run can't be read.
        """
        return toplev.read(_text(self._csv), _text(self._raw), stderr, returncode)

    @property
    def _csv(self) -> Path:
        return self.results / "toplev.csv"

    @property
    def _raw(self) -> Path:
        return self.results / "perf.raw"


def _text(file: Path) -> str | None:
    return stored.read_text(file, errors="replace") if file.exists() else None
