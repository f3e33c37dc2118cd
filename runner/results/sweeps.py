"""Which sweeps there are below an mlruns folder, and which of them a name means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.protocol.errors import RunnerError

CELLS_FILE = "cells.parquet"


def find_all(names: Sequence[str], mlruns: Path) -> list[Path]:
    """The folders of the named sweeps, each once; the newest where none is named.

    Raises:
        RunnerError: there is no sweep, or a name fits none or several.
    """
    stored = _stored(mlruns)
    if not names:
        return stored[-1:]
    return list(dict.fromkeys(path for name in names for path in (stored if name == "all" else [_named(name, stored)])))


def find(name: str | None, mlruns: Path) -> Path:
    """The sweep that a name or its beginning means; the newest without a name.

    Raises:
        RunnerError: there is no sweep, or the name fits none or several.
    """
    stored = _stored(mlruns)
    return stored[-1] if name is None else _named(name, stored)


def _stored(mlruns: Path) -> list[Path]:
    """The folders of sweeps, oldest first; a link that leads out of the store is not one."""
    try:
        store = (mlruns / "sweeps").resolve()
        folders = sorted(
            path
            for path in (mlruns / "sweeps").glob("*")
            if path.resolve().parent == store and ((path / CELLS_FILE).exists() or (path / "cells").is_dir())
        )
    except (OSError, RuntimeError) as error:  # resolve() raises the latter for links in a circle
        raise RunnerError(f"--mlruns={mlruns}: it can't be read ({error})") from error
    if not folders:
        raise RunnerError(f"--mlruns={mlruns}: there is no sweep in it; run one first (make sweep)")
    return folders


def _named(name: str, stored: Sequence[Path]) -> Path:
    exact = [path for path in stored if path.name == name]
    matches = exact or [path for path in stored if path.name.startswith(name)]
    if len(matches) != 1:
        problem = "means several sweeps" if matches else "is not a sweep"
        some = ", ".join(path.name for path in (matches or stored)[-5:])
        raise RunnerError(f"{name}: {problem} of {stored[0].parent}; choose one of {some}")
    return matches[0]
