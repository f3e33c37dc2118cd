"""Intel VTune around a job, where it is installed: it collects the ITT ranges itself. Pure.

Source: Intel VTune Profiler User Guide, "vtune Command Options" (collect, knob, result-dir, quiet).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def command(vtune: str, result: Path, argv: Sequence[str]) -> tuple[str, ...]:
    """Hotspots by user-mode sampling, which needs no driver; ``result`` must not exist yet."""
    options = ("-collect", "hotspots", "-knob", "sampling-mode=sw", "-result-dir", str(result), "-quiet")
    return (vtune, *options, "--", *argv)
