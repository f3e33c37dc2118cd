"""The torch builds of this machine: which interpreter a cell's worker runs on, and what is installed for it."""

from __future__ import annotations

import functools
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

from runner.machine import execute
from runner.machine.installation import PACKAGE
from runner.machine.torch_environments import Say, environments, make
from runner.protocol import stored, torch_build
from runner.protocol.cell import BUNDLED, Torch
from runner.protocol.errors import RunnerError
from runner.protocol.stored import FormatError
from runner.protocol.torch_build import TorchBuild

# It is run by the other interpreter, which has nothing of the project installed.
_SCRIPT = PACKAGE / "protocol" / "torch_build.py"
# What the worker is written for: older ones lack what its evidence is read from.
_LEAST_PYTHON, _LEAST_TORCH = (3, 10), (2, 6)


def build_of(torch: Torch) -> TorchBuild:
    """The torch build that a cell asks for, as it is on this machine.

    Raises:
        RunnerError: there is no such interpreter, or the worker can't run on it; the message names the option.
    """
    if torch.name == BUNDLED:
        return bundled()
    if torch.path is not None:
        return of_path(torch.path)
    environment = environments().get(torch.name)
    if environment is None:
        raise RunnerError(
            f"torch={torch.name}: its file has no path, and no {torch.name}.lock is beside it; give it one of the two"
        )
    add = f"python -m runner torch add {torch.name}"
    if not environment.is_complete:
        raise RunnerError(f"torch={torch.name}: its environment is not made yet; a sweep makes it, and so does: {add}")
    try:
        return of_path(str(environment.python))
    except RunnerError as error:
        raise RunnerError(
            f"torch={torch.name}: its environment is broken ({error}); make it again: {add} --again"
        ) from error


# Name -> why the environment of a managed build could not be made by this process.
_FAILED: dict[str, str] = {}


def require(torch: Torch, say: Say) -> None:
    """Make the environment of a managed build if it is not there, or if it is broken.

    Args:
        say: prints one line.

    Raises:
        RunnerError: it could not be made, now or before in this process.
    """
    environment = environments().get(torch.name) if torch.name != BUNDLED and torch.path is None else None
    if environment is None:
        return
    if torch.name in _FAILED:
        raise RunnerError(_FAILED[torch.name])
    is_broken = False
    if environment.is_complete:
        try:
            build_of(torch)
            return
        except RunnerError as error:
            say(str(error))
            is_broken = True
    try:
        make(environment, say, is_broken)
    except RunnerError as error:
        _FAILED[torch.name] = str(error)
        raise


@functools.cache
def bundled() -> TorchBuild:
    """The runner's own torch; the worker runs on the runner's own interpreter."""
    # A worker has neither the caller's PYTHONPATH nor the folder in which the caller is.
    foreign = {"", str(Path.cwd()), *os.environ.get("PYTHONPATH", "").split(os.pathsep)}
    return torch_build.read([folder for folder in sys.path if folder not in foreign])


def of_path(path: str) -> TorchBuild:
    """The build of an interpreter of the user's.

    Raises:
        RunnerError: see `build_of`.
    """
    # Not resolved: the link in an environment's bin/ is what makes Python choose that environment.
    python = Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - Path.resolve() follows links
    if python.is_dir():
        python = python / "bin" / "python"
    if not python.is_file() or not os.access(python, os.X_OK):
        raise RunnerError(
            f"torch.path={path}: there is no Python interpreter; name one, as in /my/environment/bin/python"
        )
    status = python.stat()
    return _of_interpreter(str(python), status.st_mtime_ns)


@functools.cache
def _of_interpreter(python: str, changed_ns: int) -> TorchBuild:
    asked = f"torch.path={python}"
    # Isolated (-I): neither variables nor the user's site packages decide what it finds, as for the worker.
    answer = execute.run_short([python, "-I", str(_SCRIPT), python])
    try:
        build = stored.fit(TorchBuild, stored.parse_json(_SCRIPT, answer.out))
    except (stored.Unfit, FormatError) as error:
        lines = [line.strip() for line in answer.err.splitlines() if line.strip()]
        said = lines[-1][:200] if lines else f"exit status {answer.status}"
        raise RunnerError(f"{asked}: it is no Python that the worker can run on ({said}); choose another") from error
    if _numbers(build.version) < _LEAST_PYTHON:
        raise RunnerError(f"{asked}: it is Python {build.version}; the worker needs {_dotted(_LEAST_PYTHON)} or newer")
    if build.torch is None:
        raise RunnerError(f"{asked}: torch is not installed for it; install it with: {python} -m pip install torch")
    if _numbers(build.torch) < _LEAST_TORCH:
        raise RunnerError(f"{asked}: it has torch {build.torch}; the worker needs {_dotted(_LEAST_TORCH)} or newer")
    return replace(build, python=python)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
