"""Stored files, read as if somebody hostile had written them: their size, encoding, JSON, and the types of a dataclass.

The one place where a file of the store becomes values, so that a reader behind it meets the types it declares and
nothing else. Needs the standard library and runner.protocol.errors only, because the worker reads its job file with it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import functools
import gzip
import io
import json
import math
import os
import re
import stat
import types
import typing
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from runner.protocol.errors import RunnerError

T = TypeVar("T")

# Past these sizes a file is refused rather than read. A result of a million samples has 25 MB.
LIMIT_BYTES = 256 * 2**20
# Of a log of any size, what is looked at from its beginning and from its end.
LOG_BYTES = 2**20
# Nested deeper than any file of ours; json and what is done with its values recurse.
_DEPTH = 64
# What numpy, pyarrow and SQLite hold.
_INTEGER = 2**64
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


class FormatError(RunnerError):
    """A stored file that is torn, damaged, too large, or not of the shape it should have."""


class VersionError(FormatError):
    """A stored file of another version, whole as far as can be told."""


@dataclass(frozen=True)
class Range:
    """Bounds of a number, for ``Annotated``."""

    least: float
    most: float = math.inf


Count = Annotated[int, Range(0)]
# Seconds: thirty years are no measurement.
Duration = Annotated[float, Range(0, 1e9)]
# Of one iteration, which no clock reads as nothing.
Latency = Annotated[float, Range(1e-12, 1e9)]
# Any metric: sums, products with a scale and squares of it stay finite.
Figure = Annotated[float, Range(-1e100, 1e100)]


# -- bytes and text ---------------------------------------------------------------------------------------


def read_bytes(path: Path, limit: int = LIMIT_BYTES) -> bytes:
    """The whole file.

    Raises:
        FormatError: it can't be read, is no regular file, or has more than ``limit`` bytes.
    """
    try:
        # Opening a FIFO would wait for its other end.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 - a descriptor
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FormatError(f"{path} is not a regular file")
            size = os.fstat(file.fileno()).st_size
            data = file.read(limit + 1) if size <= limit else b""
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error
    if max(size, len(data)) > limit:  # the second of one that grows
        raise FormatError(f"{path} is larger than {limit / 2**20:g} MiB, which no file of this kind is")
    return data


def read_text(path: Path, limit: int = LIMIT_BYTES, errors: str = "strict") -> str:
    """The whole file as UTF-8.

    Raises:
        FormatError: see `read_bytes`; or it is not UTF-8, unless ``errors`` says otherwise.
    """
    try:
        return read_bytes(path, limit).decode(errors=errors)
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} can't be read: it is not UTF-8 at byte {error.start}") from error


def read_gzip(path: Path, limit: int = LIMIT_BYTES) -> bytes:
    """What a gzip file holds.

    Raises:
        FormatError: it can't be read, or holds more than ``limit`` bytes.
    """
    packed = read_bytes(path, limit)
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
            data = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise FormatError(f"{path} can't be read: {error}") from error
    if len(data) > limit:
        raise FormatError(f"{path} holds more than {limit / 2**20:g} MiB, which no file of this kind does")
    return data


def log_text(path: Path) -> str:
    """A log: all of it, or the beginning and the end of a long one; empty when it is missing."""
    try:
        with path.open("rb") as file:
            data = file.read(LOG_BYTES)
            size = os.fstat(file.fileno()).st_size
            if size > len(data):
                file.seek(max(len(data), size - LOG_BYTES))
                data += b"\n" + file.read(LOG_BYTES)
    except OSError:
        return ""
    return data.decode(errors="replace")


# -- JSON -------------------------------------------------------------------------------------------------


def read_json(path: Path, limit: int = LIMIT_BYTES) -> Any:
    """The value in a JSON file.

    Raises:
        FormatError: it can't be read; it is not JSON; it repeats a key, nests too deeply, or has a number that no
            float or 64-bit integer holds.
    """
    return parse_json(path, read_text(path, limit))


def parse_json(path: Path, text: str) -> Any:
    """The value in the text of a JSON file; see `read_json`."""
    try:
        value = json.loads(
            text, parse_constant=_refuse, parse_float=_finite, parse_int=_integer, object_pairs_hook=_unique
        )
    except RecursionError as error:
        raise FormatError(f"{path} can't be read: it nests more than {_DEPTH} levels deep") from error
    except ValueError as error:
        raise FormatError(f"{path} can't be read: {error}") from error
    # Half of a pair of \\u escapes is no character, and no file can be written with it.
    if _HALF.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise FormatError(f"{path} can't be read: it has half of a character") from error
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(_DEPTH):
        level = [
            child
            for one in level
            for child in (one.values() if isinstance(one, dict) else one)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return value
    raise FormatError(f"{path} can't be read: it nests more than {_DEPTH} levels deep")


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is no number that can be computed with")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or abs(value := int(text)) >= _INTEGER:
        raise ValueError(f"{shown(text)} is no number that can be computed with")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {shown(next(name for name in names if names.count(name) > 1))} twice")
    return found


# -- dataclasses ------------------------------------------------------------------------------------------


def read(kind: type[T], path: Path, version: int) -> T:
    """A JSON file as a dataclass whose field ``format`` is its version.

    Raises:
        FormatError: it can't be read, or a field is missing, unknown, of another type or out of its Range.
        VersionError: it is of another version.
    """
    data = read_json(path)
    found = data.get("format") if isinstance(data, dict) else None
    if isinstance(data, dict) and (type(found) is not int or found != version):
        raise VersionError(f"{path} has format {shown(found)}; this version reads format {version}")
    return typed(kind, data, path)


def part(kind: type[T], path: Path) -> T:
    """The fields of a dataclass, of a JSON object that may have more of them.

    Raises:
        FormatError: see `read`.
    """
    data = read_json(path)
    if isinstance(data, dict):
        known = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
        data = {name: value for name, value in data.items() if name in known}
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
        path: where it is from, for the message.

    Raises:
        FormatError: it does not fit.
    """
    try:
        return fit(kind, data)
    except Unfit as unfit:
        raise FormatError(f"{path} can't be read: {unfit}") from None


class Unfit(Exception):  # noqa: N818 - becomes the error of a file or an option once that is known
    """A value that does not fit, with where it is."""

    def __init__(self, where: str, said: str) -> None:
        super().__init__(f"{where.removeprefix('.') or 'it'} {said}")
        self.where, self.said = where, said

    def inside(self, place: str) -> Unfit:
        """The same value, seen from what holds it at ``place``."""
        return Unfit(place + self.where, self.said)


def shown(value: object) -> str:
    """A foreign value as a part of a sentence."""
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


_Reader = Callable[[Any], Any]


@functools.cache
def _reader(kind: Any) -> _Reader:
    """What turns plain data into a value of this type, or raises Unfit."""
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
    return _SCALARS[kind]


def _scalar(words: str, *kinds: type) -> _Reader:
    def take(value: Any) -> Any:
        if type(value) not in kinds:  # not isinstance(): True is no number
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
        found = of(value)
        if not limits.least <= found <= limits.most:
            raise Unfit("", f"is {shown(value)}, which can't be")
        return found

    return take


def _optional(of: _Reader) -> _Reader:
    return lambda value: None if value is None else of(value)


def _either(readers: list[_Reader]) -> _Reader:
    def take(value: Any) -> Any:
        reasons = []
        for reader in readers:
            try:
                return reader(value)
            except Unfit as unfit:
                reasons.append(unfit.said)
        raise Unfit("", " and ".join([reasons[0], *(reason.partition(", ")[2] for reason in reasons[1:])]))

    return take


def _listed(of: _Reader) -> _Reader:
    def take(value: Any) -> list[Any]:
        if type(value) is not list:
            raise Unfit("", f"is {shown(value)}, not a list")
        found: list[Any] = []
        try:
            for one in value:
                found.append(of(one))
        except Unfit as unfit:
            raise unfit.inside(f"[{len(found)}]") from None
        return found

    return take


def _mapped(of: _Reader) -> _Reader:
    def take(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise Unfit("", f"is {shown(value)}, not a table of names")
        found = {}
        for name, one in value.items():
            try:
                found[name] = of(one)
            except Unfit as unfit:
                raise unfit.inside(f".{_plain(name)}") from None
        return found

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
        found = {}
        for name, one in value.items():
            if name not in readers:
                raise Unfit(f".{_plain(name)}", "is unknown")
            try:
                found[name] = readers[name](one)
            except Unfit as unfit:
                raise unfit.inside(f".{name}") from None
        return kind(**found)

    return take


def _plain(name: str) -> str:
    """A foreign name as a part of a sentence."""
    return name if name.isidentifier() and len(name) <= 40 else shown(name)


# -- writing --------------------------------------------------------------------------------------------


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` (a dataclass or plain data) whole or not at all: temporary name, then rename."""
    data = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
