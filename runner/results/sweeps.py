"""Which sweeps there are below an mlruns folder, and which of them a name means."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.protocol.errors import RunnerError
from runner.results import outcome

CELLS_FILE = "cells.parquet"


def find_all(names: Sequence[str], mlruns: Path) -> list[Path]:
    """The folders of the named sweeps, each once; the newest one with results where none is named.

    Raises:
        RunnerError: there is no sweep, or a name fits none or several.
    """
    if not names:
        return [find(None, mlruns)]
    stored = every(mlruns)
    return list(dict.fromkeys(path for name in names for path in (stored if name == "all" else [_named(name, stored)])))


def find(name: str | None, mlruns: Path, has_results: bool = True) -> Path:
    """The sweep that a name or its beginning means; without a name the newest.

    Args:
        has_results: whether the newest is the newest with results, which one that was interrupted early has not.

    Raises:
        RunnerError: there is no sweep, or the name fits none or several.
    """
    stored = every(mlruns)
    if name is not None:
        return _named(name, stored)
    return next((path for path in reversed(stored) if has_results and outcome.has_results(path)), stored[-1])


def every(mlruns: Path) -> list[Path]:
    """The folders of all sweeps, oldest first; a link that leads out of the store is not one.

    Raises:
        RunnerError: there is none, or the folder can't be read.
    """
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
        raise RunnerError(
            f"{mlruns}: there is no sweep in this folder; run one first: python -m runner -m ipex=off,on, or name "
            "another folder: --mlruns DIR"
        )
    return folders


def _named(name: str, stored: Sequence[Path]) -> Path:
    exact = [path for path in stored if path.name == name]
    matches = exact or [path for path in stored if path.name.startswith(name)]
    if len(matches) != 1:
        some = ", ".join(path.name for path in reversed((matches or stored)[-5:]))
        if matches:
            raise RunnerError(
                f"{name}: means several sweeps of {stored[0].parent}; choose one of {some} (compare takes several, and "
                "all)"
            )
        raise RunnerError(f"{name}: there is no such sweep in {stored[0].parent}; the newest are {some}")
    return matches[0]
