"""The paths of this installation: its package, its configuration, its worker. They are computed only here."""

from __future__ import annotations

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# The folder around the package: the checkout, or site-packages. A process that is started there imports this package.
PROJECT = PACKAGE.parent
# These are paths, because the IPEX launcher can't start a module.
WORKER = PACKAGE / "worker" / "__main__.py"
TRIAL = PACKAGE / "worker" / "trial.py"
PEAK = PACKAGE / "worker" / "peak.py"
# Holds the namespace package in which Hydra looks for plugins.
PLUGINS = PACKAGE / "plugins"


def cache(name: str) -> Path:
    """The folder of this name for what is kept between sweeps, below the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "runner" / name


def _shipped(name: str) -> Path:
    """The path of a folder of YAML files, which is inside the package in a wheel and next to it in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PROJECT / name


CONF = _shipped("conf")
EXPERIMENTS = _shipped("experiments")

# Folders of the user's own with experiment/NAME.yaml, model/NAME.yaml and the like; several as in PATH.
OWN_FOLDERS = "RUNNER_EXPERIMENTS"


def own_folders(text: str | None = None) -> list[Path]:
    """The folders that a value of RUNNER_EXPERIMENTS names, without those that are not there and the shipped one.

    Args:
        text: the value; None for the one in this process's environment.
    """
    text = os.environ.get(OWN_FOLDERS, "") if text is None else text
    folders = [Path(name).resolve() for name in text.split(os.pathsep) if name]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir() and folder != EXPERIMENTS]


def search_path() -> list[Path]:
    """The folders in which options find their files, in the order in which Hydra looks."""
    return [CONF, *own_folders(), EXPERIMENTS]


def search_options() -> list[str]:
    """The options of the command line that make another process look in the same folders of the user's own."""
    folders = own_folders()
    return [word for folder in folders for word in ("--config-dir", str(folder))]


# The lines that install what a plain installation leaves out: see pyproject.toml.
IPEX_EXTRA = "pip install 'runner[ipex]'"
SERVING_EXTRA = "pip install 'runner[serving]'"
