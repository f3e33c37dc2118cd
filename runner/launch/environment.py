"""The caller's environment without what would leak into a cell.

The launchers keep preset values ("Use the existing value") and leave a preset LD_PRELOAD in front
of their own: a stray export would decide the measurement.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner.protocol.jobfile import TUNING

# Where launchers look for libraries first; ours take their place.
_REPLACED = ("CONDA_PREFIX", "VIRTUAL_ENV")


def scrub(caller: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Split the caller's environment into what a worker may see and what was scrubbed."""
    scrubbed = {name: value for name, value in sorted(caller.items()) if TUNING.fullmatch(name)}
    kept = {name: value for name, value in caller.items() if name not in scrubbed and name not in _REPLACED}
    return kept, scrubbed


def visible(env: Mapping[str, str]) -> dict[str, str]:
    """The variables of a worker's environment that the runner set on purpose."""
    return {name: value for name, value in sorted(env.items()) if TUNING.fullmatch(name) or name in _REPLACED}
