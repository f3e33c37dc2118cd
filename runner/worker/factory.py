"""Where a model's callable is: in a module that Python can import, or in a file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any


def resolve(target: str) -> Callable[..., Any]:
    """The callable of this name: of a module, or of a class in it (``acme.Ranker.build``); of a file (``a.py:build``).

    Raises:
        ImportError: there is no such module, or it can't be imported.
        AttributeError: it has no such callable.
    """
    file, is_in_a_file, name = target.rpartition(".py:")
    place: Any
    place, names = (_module_of(Path(f"{file}.py")), name.split(".")) if is_in_a_file else _imported(target)
    for part in names:
        place = getattr(place, part)
    factory: Callable[..., Any] = place
    return factory


def _imported(target: str) -> tuple[Any, list[str]]:
    """The module in a dotted path, and the names after it."""
    path, names = target, list[str]()
    while True:
        path, _, name = path.rpartition(".")
        names.insert(0, name)
        try:
            return importlib.import_module(path), names
        except ModuleNotFoundError as error:
            # What a module that exists fails to import is its own affair, and so is a name without any module.
            if error.name != path or "." not in path:
                raise


def _module_of(file: Path) -> ModuleType:
    """A file as a module, which is run once and can import what is beside it, as a script can."""
    name = file.stem
    known = sys.modules.get(name)
    if known is not None and known.__spec__ is not None and known.__spec__.origin == str(file):
        return known
    if known is not None:
        name = f"{name}_of_the_model"  # a file random.py must not stand for Python's own
        if name in sys.modules:
            return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} can't be imported")
    sys.path.insert(0, str(file.parent))
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look for their own module there.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
