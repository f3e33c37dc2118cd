"""The paths of this installation: its package, its configuration, its worker. They are computed only here."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# The folder around the package: the checkout, or site-packages. A process that is started there imports this package.
PROJECT = PACKAGE.parent
# This is a path, because the IPEX launcher can't start a module.
WORKER = PACKAGE / "worker" / "__main__.py"


def _shipped(name: str) -> Path:
    """The path of a folder of YAML files, which is inside the package in a wheel and next to it in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PROJECT / name


CONF = _shipped("conf")
EXPERIMENTS = _shipped("experiments")
