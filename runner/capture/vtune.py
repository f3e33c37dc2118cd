"""The command line of Intel VTune around a job: where VTune is installed, it can collect the ITT ranges itself. Pure.

Source: Intel VTune Profiler User Guide, "vtune Command Options" (collect, knob, result-dir, quiet).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def command(vtune: str, result: Path, argv: Sequence[str]) -> tuple[str, ...]:
    """The command that runs ``argv`` and collects hotspots into the folder ``result``, which must not exist yet.

    User-mode sampling needs no driver.
    """
    options = ("-collect", "hotspots", "-knob", "sampling-mode=sw", "-result-dir", str(result), "-quiet")
    return (vtune, *options, "--", *argv)
