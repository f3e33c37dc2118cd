"""What a model is made of besides its cell: its code with all that this imports of its own, and the files it is given.

Files are found by their names and not by running anything: what a model imports under a computed name is not seen.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import os
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.protocol.content_hash import short

ABSENT = "-"
_BLOCK = 1 << 20
# More files than these are none that a person wrote for a model; their names and sizes stand for them.
_MOST_FILES = 5000


def hash_of(file: Path) -> str:
    """The hash of a file's content, however large it is."""
    status = file.stat()
    return _hash_of(file, status.st_size, status.st_mtime_ns)


@functools.cache
def _hash_of(file: Path, size: int, changed_ns: int) -> str:
    """The hash of a file, which is read once while its size and time stay the same."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:12]


@functools.cache
def code(target: str) -> str:
    """The hash of the file that defines the model's callable and of every file beside it that this one imports.

    ``-`` if there is no such file. Installed packages are looked into as far as the model's own goes: the versions of
    those that matter are part of the identity by themselves.
    """
    path, is_in_a_file, _ = target.rpartition(".py:")
    if is_in_a_file:
        file = Path(path)
        return _hash_of_all(_with_imports(file.parent, file.name, ""))
    top = target.partition(".")[0]
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return ABSENT
    # A folder without __init__.py has no file of its own, but a place.
    places = list((spec and spec.submodule_search_locations) or ()) or [spec.origin if spec and spec.origin else ""]
    base = Path(places[0]).parent
    module = target
    while module and not _file_of(base, module):
        module = module.rpartition(".")[0]
    return _hash_of_all(_with_imports(base, module, top if _is_installed(base) else "") if module else {})


def _hash_of_all(files: Mapping[str, Path]) -> str:
    """One hash of several files by the names of their modules; ``-`` if there are none."""
    if not files:
        return ABSENT
    return short("".join(sorted(f"{name} {hash_of(file)}\n" for name, file in files.items())).encode())


def _is_installed(base: Path) -> bool:
    return str(base) in {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}


def _file_of(base: Path, module: str) -> Path | None:
    path = base.joinpath(*module.split("."))
    files = (path.with_name(f"{path.name}.py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def _with_imports(base: Path, module: str, within: str) -> dict[str, Path]:
    """Module -> file, of a module and of all that it imports, directly or not, from the same folder.

    Args:
        within: the only package whose modules count; empty if all in the folder do.
    """
    files: dict[str, Path] = {}
    waiting = [module]
    while waiting and len(files) < _MOST_FILES:
        name = waiting.pop()
        file = _file_of(base, name)
        if name in files or file is None or (within and name.partition(".")[0] != within):
            continue
        files[name] = file
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        waiting += _parents(name)
        for imported in _imports(file, package):
            waiting += [imported, *_parents(imported)]
    return files


def _parents(module: str) -> list[str]:
    """The packages that Python imports before a module."""
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _imports(file: Path, package: str) -> Iterator[str]:
    """The full names of the modules that a file may import; of ``from a import b`` both a and a.b."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")
            start = [part for part in above[: len(above) - node.level + 1] if part] if node.level else []
            names = [*start, *(node.module or "").split(".")] if node.module else start
            if names:
                yield ".".join(names)
                yield from (".".join([*names, alias.name]) for alias in node.names)
            else:
                yield from (alias.name for alias in node.names)


def given_files(kwargs: Mapping[str, Any]) -> dict[str, str]:
    """``model.kwargs.KEY`` -> hash of the content, for every argument that names a file, or the path of a folder."""
    hashes = {}
    for key, value in _texts("model.kwargs", kwargs):
        try:
            found = _content(Path(value), is_path=os.sep in value)
        except (OSError, ValueError):
            continue  # it can't be a path, or can't be read: the worker says so
        if found:
            hashes[key] = found
    return hashes


def _texts(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _texts(f"{key}.{name}", inner)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _texts(f"{key}[{number}]", inner)


def _content(path: Path, is_path: bool) -> str:
    """The hash of a file or of all files in a folder; empty if there is neither.

    Args:
        is_path: whether the text looks like a path: a word that a folder happens to have as its name means no folder.
    """
    if path.is_file():
        return hash_of(path)
    if not is_path or not path.is_dir():
        return ""
    files = sorted(file for file in path.rglob("*") if file.is_file())
    is_read = len(files) <= _MOST_FILES
    lines = [f"{file.relative_to(path)} {hash_of(file) if is_read else file.stat().st_size}\n" for file in files]
    return short("".join(lines).encode())
