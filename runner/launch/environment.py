"""The caller's environment without the variables that would change a cell.

The launchers keep the values of variables that are set ("Use the existing value"), and put a preset LD_PRELOAD in front
of their own: a stray export would decide the measurement. So would folders in which Python looks for packages before it
looks in the torch build that was asked for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from runner.protocol.jobfile import TUNING

# Launchers look for libraries in the first two folders; the runner sets them to folders of its own. The locale is C,
# for the tools that launchers and workers call; Python reads and writes UTF-8 in it (PEP 540).
_REPLACED = ("CONDA_PREFIX", "VIRTUAL_ENV", "LC_ALL")
# Variables that would lead an interpreter to packages of another one.
_ELSEWHERE = ("PYTHONHOME", "PYTHONUSERBASE", "PYTHONNOUSERSITE")
# A folder of PYTHONPATH may hold the user's models, but none of these: they are the build's.
_OF_THE_BUILD = (
    "torch",
    "intel_extension_for_pytorch",
    "torchvision",
    "torchao",
    "transformers",
    "numpy",
)


def scrub(caller: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Split the caller's environment into the variables that a worker may see and those that are left out.

    Of PYTHONPATH a worker sees the folders with models, and those with packages of a torch build are left out.
    """
    scrubbed = {name: value for name, value in sorted(caller.items()) if TUNING.fullmatch(name) or name in _ELSEWHERE}
    allowed = {name: value for name, value in caller.items() if name not in scrubbed and name not in _REPLACED}
    folders = caller.get("PYTHONPATH", "").split(os.pathsep)
    left_out = [folder for folder in folders if _has_packages_of_a_build(Path(folder))]
    if left_out:
        scrubbed["PYTHONPATH"] = os.pathsep.join(left_out)
        allowed["PYTHONPATH"] = os.pathsep.join(folder for folder in folders if folder not in left_out)
    return allowed, scrubbed


def _has_packages_of_a_build(folder: Path) -> bool:
    return any((folder / name / "__init__.py").is_file() for name in _OF_THE_BUILD)


def tuning_variables(env: Mapping[str, str]) -> dict[str, str]:
    """The variables in a worker's environment that the runner set on purpose."""
    own = (*_REPLACED, *_ELSEWHERE, "PYTHONPATH")
    return {name: value for name, value in sorted(env.items()) if TUNING.fullmatch(name) or name in own}
