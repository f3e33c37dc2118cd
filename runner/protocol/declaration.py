"""How a field of the cell says what it is: the one place where an axis or setting is declared.

The columns of tables, the rules of comparison, limits, ``--help``, the job file, params and tags in MLflow are all
derived from it. Standard library only, because the worker reads the cell too.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

# The text for an axis or setting that a cell does not have, such as an axis that is younger than its results.
ABSENT = "-"
# The largest number allowed anywhere: every clock, file and generator of ours holds it exactly.
MOST = 10**9


class Role(Enum):
    """What a field is to those who read results."""

    AXIS = "axis"
    """A dimension of the matrix: a param in MLflow, matched by exclude rules, a column where it varies."""
    SETTING = "setting"
    """Any other value that can change a result: a tag in MLflow, a column where it varies and no axis explains it."""
    DETAIL = "detail"
    """A part of the cell's identity that follows from its axis and tells a reader nothing more."""
    SWEEP = "sweep"
    """No part of a cell: one value for the whole sweep."""


@dataclass(frozen=True)
class Declaration:
    """How a field of the cell is declared."""

    role: Role
    help: str
    """One sentence for ``--help``; for a number, with its unit."""
    is_work: bool = False
    """Whether it changes the work of an iteration: latencies of different work have no ratio."""
    is_measuring: bool = False
    """Whether it says only how long to measure."""
    is_group: bool = False
    """Whether its values are files, ``conf/<axis>/<value>.yaml``."""
    owner: str = ""
    """The axis that a setting belongs to although it stands beside it: with other values of it, it means nothing."""
    absent: str = ABSENT
    """The text that stands for null."""
    choices: tuple[str, ...] = ()
    """The texts that are allowed; empty if any is."""
    least: float | None = None
    """The lowest number allowed."""
    above: float | None = None
    """The number that it must be greater than."""
    most: float = MOST
    """The highest number allowed."""
    unit: str = ""
    """What a number counts, in the plural: ``samples per iteration``."""
    keys: tuple[str, ...] = ()
    """The names that a mapping may have; empty if it may have any."""
    yaml: str = ""
    """The field's name in YAML; empty if it is the same there."""


_KEY = "declaration"


def declare(declaration: Declaration, default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field with its declaration.

    Args:
        default: the value when neither YAML nor the command line gives one; without a default, YAML must.
    """
    metadata = {_KEY: declaration}
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def axis(sentence: str, default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """A dimension of the matrix: ``more`` are further fields of its `Declaration`."""
    return declare(Declaration(Role.AXIS, sentence, **more), default)


def setting(sentence: str, default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """Any other value that can change a result: ``more`` are further fields of its `Declaration`."""
    return declare(Declaration(Role.SETTING, sentence, **more), default)


def detail(sentence: str, default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """A value that follows from its axis: ``more`` are further fields of its `Declaration`."""
    return declare(Declaration(Role.DETAIL, sentence, **more), default)


def of_sweep(sentence: str, default: Any = dataclasses.MISSING, **more: Any) -> Any:
    """One value for the whole sweep: ``more`` are further fields of its `Declaration`."""
    return declare(Declaration(Role.SWEEP, sentence, **more), default)


@dataclass(frozen=True)
class Entry:
    """One declared value of a cell, wherever in the cell it stands."""

    key: str
    """``batch_size``; ``allocator`` for the name of that axis's value; ``allocator.env`` for what belongs to it."""
    declaration: Declaration
    hint: Any
    """The type of the value."""
    value: Callable[[Any], Any]
    """The function that takes it out of a cell."""
    default: Any = dataclasses.MISSING
    """The value when nothing else gives one; MISSING where YAML must."""

    @property
    def owner(self) -> str:
        """The axis that the entry belongs to; empty for an axis, and for a setting that belongs to none."""
        return self.key.partition(".")[0] if "." in self.key else self.declaration.owner

    def text(self, cell: Any) -> str:
        """The entry's value in a cell, as tables, rules and MLflow show it."""
        return as_text(self.value(cell), self.declaration, self.hint)


def as_text(value: Any, declaration: Declaration, hint: Any = None) -> str:
    """A value as tables, rules and MLflow show it."""
    if value is None:
        return declaration.absent
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        if typing.get_args(hint)[1:] == (str,):  # an environment
            return " ".join(f"{name}={text}" for name, text in sorted(value.items()))
        return json.dumps(dict(value), sort_keys=True, default=str)
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def declaration_of(field: dataclasses.Field[Any]) -> Declaration:
    """The declaration of a field of the cell, or of one of its parts.

    Raises:
        TypeError: the field has none.
    """
    declaration = field.metadata.get(_KEY)
    if not isinstance(declaration, Declaration):
        raise TypeError(f"{field.name} is not declared: use axis(), setting() or detail()")
    return declaration


def entries(cell: type[Any]) -> tuple[Entry, ...]:
    """Everything that a class of cells declares, in its order: each axis followed by what belongs to it."""
    if cell not in _ENTRIES:
        _ENTRIES[cell] = tuple(_entries(cell))
    return _ENTRIES[cell]


_ENTRIES: dict[Any, tuple[Entry, ...]] = {}


def _entries(cell: type[Any]) -> Iterator[Entry]:
    hints = typing.get_type_hints(cell)
    for field in dataclasses.fields(cell):
        hint, outer = hints[field.name], declaration_of(field)
        if not dataclasses.is_dataclass(hint):
            yield Entry(field.name, outer, hint, _reader(field.name), default_of(field))
            continue
        inner = typing.get_type_hints(hint)
        for part in dataclasses.fields(hint):
            # The name of a part is the value of its axis.
            key = field.name if part.name == "name" else f"{field.name}.{yaml_name(part)}"
            declaration = outer if part.name == "name" else declaration_of(part)
            yield Entry(key, declaration, inner[part.name], _reader(field.name, part.name), default_of(part))


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field; MISSING if it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _reader(*names: str) -> Callable[[Any], Any]:
    def read(cell: Any) -> Any:
        value = cell
        for name in names:
            value = getattr(value, name)
        return value

    return read


def yaml_name(field: dataclasses.Field[Any]) -> str:
    """A field's name in YAML."""
    return field.metadata[_KEY].yaml or field.name if _KEY in field.metadata else field.name
