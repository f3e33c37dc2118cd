"""Managed torch builds: one environment per lock file, made on demand by uv in a cache that all sweeps share.

A managed build is a file conf/torch/NAME.yaml without a path, and NAME.lock beside it, which pins and hashes every
package. An environment is whole when its COMPLETE file is there; a process that was killed while it made one left none.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from runner.machine import execute, installation
from runner.machine.installation import search_path
from runner.protocol import content_hash, stored
from runner.protocol.errors import RunnerError
from runner.protocol.stored import FormatError, write_json

# Prints one line.
Say = Callable[[str], None]

COMPLETE = "runner.json"
# The folder of all environments; by default below the user's cache.
CACHE = "RUNNER_TORCH_BUILDS"
# A wheel of torch has half a gigabyte, and its libraries two more.
_TIMEOUT_S = 3600.0
# Where the public index has no wheel for the CPU alone, torch brings libraries that its import needs.
SIZE = "3 to 4 GB"


@dataclass(frozen=True)
class Environment:
    """A managed environment, made or not."""

    name: str
    """The value of the axis."""
    lock: Path
    """The file that pins its packages."""
    folder: Path
    """Where it is, or will be."""

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def is_complete(self) -> bool:
        """Whether it was made to the end, and its interpreter is there."""
        return (self.folder / COMPLETE).exists() and self.python.exists()

    @property
    def size_bytes(self) -> int:
        """The size of its files; 0 if it was not made to the end."""
        file = self.folder / COMPLETE
        try:
            made = stored.fit(Made, stored.parse_json(file, stored.read_text(file)))
        except (OSError, stored.Unfit, FormatError):
            return 0
        return made.size_bytes


@dataclass(frozen=True)
class Made:
    """The COMPLETE file of an environment."""

    name: str
    lock: str
    """The hash of the lock file."""
    size_bytes: int


def cache() -> Path:
    """The folder of all managed environments."""
    named = os.environ.get(CACHE)
    if named:
        return Path(named).absolute()
    return installation.cache("torch")


def environments() -> dict[str, Environment]:
    """Name -> environment of every lock file among the values of the axis; a user's own hides a shipped one."""
    found: dict[str, Environment] = {}
    for folder in search_path():
        for lock in sorted((folder / "torch").glob("*.lock")):
            found.setdefault(lock.stem, _environment(lock))
    return dict(sorted(found.items()))


def _environment(lock: Path) -> Environment:
    # Packages are chosen for a version of Python: another one has an environment of its own.
    key = content_hash.short(lock.read_bytes())
    python = f"py{sys.version_info[0]}.{sys.version_info[1]}"
    return Environment(lock.stem, lock, cache() / f"{lock.stem}-{key}-{python}")


def leftovers() -> list[Path]:
    """The folders in the cache that belong to no lock file any more."""
    wanted = {environment.folder for environment in environments().values()}
    folders = sorted(path for path in cache().glob("*-py*") if path.is_dir())
    return [folder for folder in folders if folder not in wanted]


@functools.cache
def uv() -> str:
    """The path of uv.

    Raises:
        RunnerError: it is not installed.
    """
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        install = f"{sys.executable} -m pip install uv"
        raise RunnerError(f"uv, which makes torch builds, is not installed; install it with: {install}")
    return found


def make(environment: Environment, say: Say, is_new: bool = False) -> None:
    """Make an environment if it is not there; of two processes one makes it and the other waits.

    Args:
        say: prints one line.
        is_new: whether one that is there is made again.

    Raises:
        RunnerError: uv could not make it; nothing of it is left.
    """
    with _only_one(environment, say):
        if environment.is_complete and not is_new:
            return
        if environment.folder.exists():
            say(f"torch={environment.name}: {environment.folder} is not whole: it is made again")
            shutil.rmtree(environment.folder)
        say(f"torch={environment.name}: making its environment, once: {SIZE}, minutes (in {environment.folder})")
        try:
            _build(environment)
        except BaseException:
            shutil.rmtree(environment.folder, ignore_errors=True)
            raise
        say(f"torch={environment.name}: made, {environment.size_bytes / 1e9:.1f} GB")


def _build(environment: Environment) -> None:
    base = getattr(sys, "_base_executable", "") or sys.executable
    _run(environment, ["venv", "--quiet", "--no-project", "--python", base, str(environment.folder)])
    words = ["pip", "sync", "--require-hashes", "--python", str(environment.python), str(environment.lock)]
    _run(environment, words)
    files = (path for path in environment.folder.rglob("*") if path.is_file() and not path.is_symlink())
    lock = content_hash.short(environment.lock.read_bytes())
    made = Made(environment.name, lock, sum(path.stat().st_size for path in files))
    write_json(environment.folder / COMPLETE, asdict(made))


def _run(environment: Environment, words: Sequence[str]) -> None:
    """Run uv, whose progress and errors go to the terminal.

    Raises:
        RunnerError: it failed.
    """
    status = execute.run_shown([uv(), *words], _TIMEOUT_S)
    if status != 0:
        raise RunnerError(
            f"torch={environment.name}: uv could not make its environment (exit status {status}; uv said above why); "
            f"when that is mended: python -m runner torch add {environment.name}"
        )


@contextlib.contextmanager
def _only_one(environment: Environment, say: Say) -> Iterator[None]:
    """Hold the lock of one environment; say so once if another process has it."""
    environment.folder.parent.mkdir(parents=True, exist_ok=True)
    file = environment.folder.with_name(f"{environment.folder.name}.lock")
    with file.open("w") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"torch={environment.name}: waiting for another process that makes it")
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def remove(folder: Path) -> None:
    """Remove an environment from the cache; the file goes first that says that it is whole."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
