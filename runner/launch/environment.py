"""The caller's environment without the variables that would change a cell.

The launchers keep the values of variables that are set ("Use the existing value"), and put a preset LD_PRELOAD in front
of their own: a stray export would decide the measurement.
"""

from __future__ import annotations

from collections.abc import Mapping

from runner.protocol.jobfile import TUNING

# Launchers look for libraries in the first two folders; the runner sets them to folders of its own. The locale is C,
# for the tools that launchers and workers call; Python reads and writes UTF-8 in it (PEP 540).
_REPLACED = ("CONDA_PREFIX", "VIRTUAL_ENV", "LC_ALL")


def scrub(caller: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Split the caller's environment into the variables that a worker may see and those that are left out."""
    scrubbed = {name: value for name, value in sorted(caller.items()) if TUNING.fullmatch(name)}
    allowed = {name: value for name, value in caller.items() if name not in scrubbed and name not in _REPLACED}
    return allowed, scrubbed


def tuning_variables(env: Mapping[str, str]) -> dict[str, str]:
    """The variables in a worker's environment that the runner set on purpose."""
    return {name: value for name, value in sorted(env.items()) if TUNING.fullmatch(name) or name in _REPLACED}
