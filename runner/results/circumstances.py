"""Where, with which torch, when and for how long a sweep was measured: what its result is not true without."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.results import planfile
from runner.results.outcome import CellRecord

# Words of a CPU's name that tell nothing: "(R)", "CPU @ 2.60GHz", "64-Core Processor".
_NOISE = re.compile(r"\((?:R|TM|tm)\)|\bCPU\b|@.*|\b\d+-Core\b|\bProcessor\b|\bwith Radeon.*")
# What host.json says of a logical CPU.
_OF_CPU = ("node", "socket", "core", "cpu")
# A part of a list of CPUs like "0-3,8".
_CPUS = re.compile(r"\d{1,6}(-\d{1,6})?")
# The folder of a sweep is named by the time of its start, unless the user named it.
_STARTED = re.compile(r"(\d{4})(\d{2})(\d{2})-\d{6}\b")


@dataclass(frozen=True)
class Circumstances:
    """What is the same for all cells of a sweep besides their axes; empty or 0 where it is not known."""

    cpu: str = ""
    """The name of the CPU, without the words that all of them have."""
    cores: int = 0
    """The number of physical cores of the node that a sweep uses unless its axes say otherwise."""
    torch: str = ""
    """The version of torch."""
    date: str = ""
    """The day on which it was started, like ``2026-11-25``."""
    took_s: float = 0.0
    """The seconds that its jobs took in all."""


def read(sweep: Path, records: Sequence[CellRecord] = ()) -> Circumstances:
    """The circumstances of a stored sweep; what its files do not say is not known.

    Args:
        sweep: the folder of the sweep.
        records: the records of its cells, which say how long their jobs took.

    Raises:
        FormatError: host.json can't be read.
    """
    host, started = planfile.read_host(sweep), _STARTED.match(sweep.name)
    return Circumstances(
        cpu=" ".join(_NOISE.sub(" ", host.cpu_model or "").split()),
        cores=_cores(host),
        torch=host.versions.get("torch") or "",
        date="-".join(started.groups()) if started else "",
        took_s=sum(_took_s(record) for record in records),
    )


def _cores(host: planfile.Host) -> int:
    """The physical cores of the first node with CPUs that were allowed; 0 if they are not known."""
    parts = [part.partition("-") for part in (host.cpus_allowed or "").split(",") if _CPUS.fullmatch(part)]
    ranges = [(int(first), int(last or first)) for first, _, last in parts]
    allowed = []
    for cpu in host.cpus:
        entry = [cpu.get(key) for key in _OF_CPU] if isinstance(cpu, dict) else []
        numbers = [number for number in entry if isinstance(number, int)]
        if len(numbers) == len(_OF_CPU) and any(first <= numbers[-1] <= last for first, last in ranges):
            allowed.append(tuple(numbers[:-1]))
    return len({cpu for cpu in allowed if cpu[0] == min(allowed)[0]})


def _took_s(record: CellRecord) -> float:
    captured = record.captured.cost_s.get("captures", 0.0) if record.captured else 0.0
    return captured + sum(outcome.cost_s.get("job", 0.0) for outcome in record.outcomes)
