"""The energy that the CPU's packages use, as the kernel counts it (RAPL: powercap.rst; sysfs-class-powercap).

Counters are in microjoules and begin again at zero after their range, which takes minutes under load. Nothing is
estimated: where a counter is missing or can't be read, there is no figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """The counter of one package."""

    file: Path
    range_uj: int
    """The largest value that it shows before it begins again at zero."""


def counters(powercap: Path = POWERCAP) -> tuple[list[Counter], str]:
    """The counters of all packages, and why there are none if there are none."""
    found = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        try:
            # Zones within a package, like its cores, are counted in the package already.
            if not (zone / "name").read_text().startswith("package"):
                continue
            counter = Counter(zone / "energy_uj", int((zone / "max_energy_range_uj").read_text()))
            counter.file.read_text()
            found.append(counter)
        except PermissionError:
            return [], f"{zone}/energy_uj may be read by root alone: chmod a+r it"
        except (OSError, ValueError):
            continue
    if found:
        return found, ""
    return [], "this machine shows no energy counters (a virtual machine, or a kernel without intel_rapl)"


def read(counters: list[Counter]) -> dict[Path, int] | None:
    """File -> microjoules of each counter; None if one can't be read, or there is none."""
    try:
        return {counter.file: int(counter.file.read_text()) for counter in counters} or None
    except (OSError, ValueError):
        return None


def joules_between(
    counters: list[Counter], before: Mapping[Path, int] | None, after: Mapping[Path, int] | None
) -> float | None:
    """The joules of all packages between two readings less than one range apart; None if one is missing."""
    if before is None or after is None:
        return None
    spent_uj = 0
    for counter in counters:
        difference = after[counter.file] - before[counter.file]
        spent_uj += difference if difference >= 0 else difference + counter.range_uj
    return spent_uj * 1e-6
