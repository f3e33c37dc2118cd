"""mlruns/peaks: what hosts can do at most, one file per host, torch build and set of cores; the newest counts.

A figure that others disturbed, or that contradicts another, is no peak: it is neither stored nor believed when read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from runner.protocol import contamination, stored
from runner.protocol.peaks import DTYPES, FORMAT, Peaks
from runner.protocol.stored import FormatError, write_json

FOLDER = "peaks"
MEASURE = "python -m runner peak"
# A product of matrices and the registers are measured seconds apart, between which turbo comes and goes.
_TURBO = 1.15


def problem(peaks: Peaks) -> str:
    """Why these figures are no peaks, in one sentence; empty if they are."""
    reasons = contamination.judge(peaks.window)
    if reasons:
        return f"others disturbed the measurement: {'; '.join(reasons)}"
    for dtype in DTYPES:
        ceiling, product = peaks.ceiling(dtype), peaks.gemm.get(dtype)
        if ceiling and product and product.per_s > _TURBO * ceiling.per_s:
            return (
                f"a product of matrices in {dtype} did {product.per_s / 1e9:.4g} GOP/s, more than the registers "
                f"({ceiling.per_s / 1e9:.4g}): one of the two was disturbed, or counted wrongly"
            )
    if not (peaks.registers or peaks.gemm):
        return "no arithmetic was measured"
    return ""


def _when(peaks: Peaks) -> float:
    """Seconds since the epoch."""
    return datetime.fromisoformat(peaks.date).timestamp()


def save(peaks: Peaks, mlruns: Path) -> Path:
    """Keep the peaks of a host for its torch build and cores, in place of older ones; returns the file."""
    folder = mlruns / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    cores = "-".join(map(str, (len(peaks.cores), min(peaks.cores, default=0))))
    name = re.sub(r"[^\w.+-]", "_", f"{peaks.host_id}-{peaks.torch}-{cores}")
    file = folder / f"{name}.json"
    write_json(file, peaks)
    return file


def read(file: Path) -> Peaks:
    """One file of peaks.

    Raises:
        FormatError: it is torn, of another version, or its figures are no peaks.
    """
    peaks = stored.read(Peaks, file, FORMAT)
    try:
        _when(peaks)
    except (ValueError, OverflowError) as error:
        raise FormatError(f"{file} can't be read: date is {stored.shown(peaks.date)}") from error
    why = problem(peaks) or ("it was measured briefly" if peaks.is_quick else "")
    if why:
        raise FormatError(f"{file} can't be believed: {why}")
    return peaks


class HostPeaks:
    """All peaks of one host that can be believed, and what is said of the others."""

    def __init__(self, mlruns: Path, host_id: str) -> None:
        """Read them.

        Args:
            mlruns: the results folder.
            host_id: the host's id, see runner.machine.host.fingerprint().
        """
        self._peaks: list[Peaks] = []
        self.notes: list[str] = []
        """A sentence on each file that is passed over."""
        for file in sorted((mlruns / FOLDER).glob("*.json")):
            try:
                peaks = read(file)
            except FormatError as error:
                self.notes.append(f"{FOLDER}/{file.name} is passed over: {error}")
                continue
            if peaks.host_id == host_id:
                self._peaks.append(peaks)

    def of(self, torch: str, threads: int, cores: Collection[int]) -> Peaks | None:
        """The newest peaks of a torch build on as many of these cores as there are threads; None without any."""
        fitting = [
            peaks
            for peaks in self._peaks
            if peaks.torch == torch and len(peaks.cores) == threads and set(peaks.cores) <= set(cores)
        ]
        return max(fitting, key=_when, default=None)


def repeatability(some: Peaks, others: Peaks) -> float:
    """The largest relative difference of a figure of arithmetic that two measurements share; 0 if they share none."""
    pairs = [
        (table[dtype].per_s, other[dtype].per_s)
        for table, other in ((some.registers, others.registers), (some.gemm, others.gemm))
        for dtype in table.keys() & other.keys()
    ]
    return max((math.expm1(abs(math.log(one / another))) for one, another in pairs), default=0.0)
