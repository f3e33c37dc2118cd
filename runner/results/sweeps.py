"""Which sweeps there are below an mlruns folder, and which of them a name means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.protocol.errors import RunnerError

CELLS_FILE = "cells.parquet"


def find_all(names: Sequence[str], mlruns: Path) -> list[Path]:
    """The folders that are meant, each once; the newest where none is named.

    Raises:
        RunnerError: there is no sweep, or a name means none or several.
    """
    there = _there(mlruns)
    if not names:
        return there[-1:]
    return list(dict.fromkeys(path for name in names for path in (there if name == "all" else [_named(name, there)])))


def find(name: str | None, mlruns: Path) -> Path:
    """The sweep that a name or its beginning means; the newest without a name.

    Raises:
        RunnerError: there is no sweep, or the name means none or several.
    """
    there = _there(mlruns)
    return there[-1] if name is None else _named(name, there)


def _there(mlruns: Path) -> list[Path]:
    """Folders of sweeps, oldest first; a link that leads out of the store is none."""
    try:
        store = (mlruns / "sweeps").resolve()
        there = sorted(
            path
            for path in (mlruns / "sweeps").glob("*")
            if path.resolve().parent == store and ((path / CELLS_FILE).exists() or (path / "cells").is_dir())
        )
    except (OSError, RuntimeError) as error:  # resolve() raises the latter for links in a circle
        raise RunnerError(f"--mlruns={mlruns}: it can't be read ({error})") from error
    if not there:
        raise RunnerError(f"--mlruns={mlruns}: there is no sweep in it; run one first (make sweep)")
    return there


def _named(name: str, there: Sequence[Path]) -> Path:
    exact = [path for path in there if path.name == name]
    meant = exact or [path for path in there if path.name.startswith(name)]
    if len(meant) != 1:
        problem = "means several sweeps" if meant else "is no sweep"
        some = ", ".join(path.name for path in (meant or there)[-5:])
        raise RunnerError(f"{name}: {problem} of {there[0].parent}; choose one of {some}")
    return meant[0]
