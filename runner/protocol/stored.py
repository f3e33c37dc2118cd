"""Stored files as typed values: a JSON file becomes the dataclass it should be, or is refused with the field's name.

The one place where a file of the store becomes values, so that a reader behind it meets the types it declares and
nothing else. Bytes and text (runner.protocol.files) and JSON (runner.protocol.strict_json) can be had from here as
well. Needs the standard library only, because the worker reads its job file with it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, TypeVar

from runner.protocol.errors import FormatError, VersionError
from runner.protocol.files import LIMIT_BYTES, LOG_BYTES, log_text, read_bytes, read_gzip, read_text
from runner.protocol.strict_json import as_written, parse_json, read_json, shown, write_json

__all__ = [
    "FIGURE_LIMIT", "LIMIT_BYTES", "LOG_BYTES", "Count", "Duration", "Figure", "FormatError", "Latency", "Range",
    "Unfit", "VersionError", "as_written", "fit", "log_text", "parse_json", "part", "read", "read_bytes", "read_gzip",
    "read_json", "read_text", "shown", "typed", "write_json",
]  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """Bounds of a number, for ``Annotated``."""

    least: float
    most: float = math.inf


Count = Annotated[int, Range(0)]
# Seconds: thirty years are no measurement.
Duration = Annotated[float, Range(0, 1e9)]
# Seconds of one iteration or request: no clock reads them as 0.
Latency = Annotated[float, Range(1e-12, 1e9)]
# Any metric: sums, products with a scale and squares of it stay finite.
FIGURE_LIMIT = 1e100
Figure = Annotated[float, Range(-FIGURE_LIMIT, FIGURE_LIMIT)]


def read(kind: type[T], path: Path, version: int) -> T:
    """A JSON file as a dataclass whose field ``format`` is its version.

    Raises:
        FormatError: it can't be read, or a field is missing, unknown, of another type or out of its Range.
        VersionError: it is of another version.
    """
    data = read_json(path)
    number = data.get("format") if isinstance(data, dict) else None
    if isinstance(data, dict) and (type(number) is not int or number != version):
        raise VersionError(f"{path} has format {shown(number)}; this version reads format {version}")
    return typed(kind, data, path)


def part(kind: type[T], path: Path) -> T:
    """A JSON object as a dataclass; entries for which the dataclass has no field are ignored.

    Raises:
        FormatError: see `read`.
    """
    data = read_json(path)
    if isinstance(data, dict):
        names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        data = {name: value for name, value in data.items() if name in names}
    return typed(kind, data, path)


def fit(kind: type[T], data: object) -> T:
    """Plain data, checked and turned into ``kind``.

    Raises:
        Unfit: it does not fit.
    """
    return typing.cast(T, _reader(typing.cast(Any, kind))(data))


def typed(kind: type[T], data: object, path: Path) -> T:
    """Plain data, checked and turned into ``kind``.

    Args:
        path: the file that the data is from, for the message.

    Raises:
        FormatError: it does not fit.
    """
    try:
        return fit(kind, data)
    except Unfit as unfit:
        raise FormatError(f"{path} can't be read: {unfit}") from None


class Unfit(Exception):  # noqa: N818 - becomes the error of a file or an option once that is known
    """A value that does not fit, with where it is."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where.removeprefix('.') or 'it'} {reason}")
        self.where, self.reason = where, reason

    def inside(self, place: str) -> Unfit:
        """The error for the list or table that holds the value at ``place``."""
        return Unfit(place + self.where, self.reason)


_Reader = Callable[[Any], Any]


@functools.cache
def _reader(kind: Any) -> _Reader:
    """The function that turns plain data into a value of this type, or raises Unfit."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda value: value
    if origin is Annotated:
        return _bounded(_reader(arguments[0]), arguments[1])
    if origin in (typing.Union, types.UnionType):
        kinds = [_reader(kind) for kind in arguments if kind is not type(None)]
        reader = kinds[0] if len(kinds) == 1 else _either(kinds)
        return _optional(reader) if type(None) in arguments else reader
    if origin is tuple:
        elements = _listed(_reader(arguments[0]))
        return lambda value: tuple(elements(value))
    if origin in (list, collections.abc.Sequence):
        return _listed(_reader(arguments[0]))
    if origin in (dict, collections.abc.Mapping):
        return _mapped(_reader(arguments[1]))
    if dataclasses.is_dataclass(kind):
        return _structure(typing.cast(type, kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _member(kind)
    return _SCALARS[kind]


def _scalar(words: str, *kinds: type) -> _Reader:
    def take(value: Any) -> Any:
        if type(value) not in kinds:  # not isinstance(): True is not a number
            raise Unfit("", f"is {shown(value)}, not {words}")
        return value

    return take


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise Unfit("", f"is {shown(value)}, not a number")
    return float(value)


_SCALARS: dict[Any, _Reader] = {
    str: _scalar("a text", str),
    bool: _scalar("true or false", bool),
    int: _scalar("a whole number", int),
    float: _number,
}


def _bounded(of: _Reader, limits: Range) -> _Reader:
    def take(value: Any) -> Any:
        number = of(value)
        if not limits.least <= number <= limits.most:
            raise Unfit("", f"is {shown(value)}, which is out of range")
        return number

    return take


def _member(kind: type[Enum]) -> _Reader:
    members = {member.value: member for member in kind}

    def take(value: Any) -> Any:
        if type(value) is not str or value not in members:
            raise Unfit("", f"is {shown(value)}, not one of {', '.join(members)}")
        return members[value]

    return take


def _optional(of: _Reader) -> _Reader:
    return lambda value: None if value is None else of(value)


def _either(readers: list[_Reader]) -> _Reader:
    """The first that fits, so that a narrow type (an Enum) stands before a wide one (a text)."""

    def take(value: Any) -> Any:
        reasons = []
        for reader in readers:
            try:
                return reader(value)
            except Unfit as unfit:
                reasons.append(unfit.reason)
        raise Unfit("", " and ".join([reasons[0], *(reason.partition(", ")[2] for reason in reasons[1:])]))

    return take


def _listed(of: _Reader) -> _Reader:
    def take(value: Any) -> list[Any]:
        if type(value) is not list:
            raise Unfit("", f"is {shown(value)}, not a list")
        elements: list[Any] = []
        try:
            for element in value:
                elements.append(of(element))
        except Unfit as unfit:
            raise unfit.inside(f"[{len(elements)}]") from None
        return elements

    return take


def _mapped(of: _Reader) -> _Reader:
    def take(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise Unfit("", f"is {shown(value)}, not a table of names")
        values = {}
        for name, element in value.items():
            try:
                values[name] = of(element)
            except Unfit as unfit:
                raise unfit.inside(f".{_plain(name)}") from None
        return values

    return take


def _structure(kind: type) -> _Reader:
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = [field for field in dataclasses.fields(kind) if field.init]
    readers = {field.name: _reader(hints[field.name]) for field in fields}
    required = [
        field.name
        for field in fields
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]

    def take(value: Any) -> Any:
        if type(value) is not dict:
            raise Unfit("", f"is {shown(value)}, not a table of names")
        for name in required:
            if name not in value:
                raise Unfit(f".{name}", "is missing")
        values = {}
        for name, element in value.items():
            if name not in readers:
                raise Unfit(f".{_plain(name)}", "is unknown")
            try:
                values[name] = readers[name](element)
            except Unfit as unfit:
                raise unfit.inside(f".{name}") from None
        return kind(**values)

    return take


def _plain(name: str) -> str:
    """A foreign name as a part of a sentence."""
    return name if name.isidentifier() and len(name) <= 40 else shown(name)
