"""Where the parts of this installation are: the package, its configuration, its worker. The only place that knows."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# What the package lies in: the checkout, or site-packages. A process started there imports this package.
PROJECT = PACKAGE.parent
# A path, because the IPEX launcher can't start a module.
WORKER = PACKAGE / "worker" / "__main__.py"


def _shipped(name: str) -> Path:
    """A folder of YAML: inside the package in a wheel, beside it in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PROJECT / name


CONF = _shipped("conf")
EXPERIMENTS = _shipped("experiments")
