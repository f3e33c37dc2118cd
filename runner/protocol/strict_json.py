"""Reads JSON as if somebody hostile had written it, and writes JSON whole or not at all.

A file that repeats a key, nests too deeply, or holds an impossible number or character is refused: json alone accepts
all of these. The types of the values are checked in runner.protocol.stored.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from pathlib import Path
from typing import Any, NoReturn

from runner.protocol.errors import FormatError
from runner.protocol.files import LIMIT_BYTES, read_text

# No file of ours nests as deeply; json recurses, and so does the code that uses its values.
_DEPTH = 64
# Numpy, pyarrow and SQLite hold no integer of this size.
_INTEGER = 2**64
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


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
    # Half of a pair of \\u escapes is not a character, and can't be written to a file.
    if _HALF.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise FormatError(f"{path} can't be read: it has half of a character") from error
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return value
    raise FormatError(f"{path} can't be read: it nests more than {_DEPTH} levels deep")


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is too large a number to compute with")
    return value


def _integer(text: str) -> int:
    if len(text) > 20 or abs(value := int(text)) >= _INTEGER:
        raise ValueError(f"{shown(text)} is too large a number to compute with")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has {shown(next(name for name in names if names.count(name) > 1))} twice")
    return table


def shown(value: object) -> str:
    """A foreign value as a part of a sentence."""
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def as_written(value: Any) -> Any:
    """``value`` (a dataclass or plain data) as it is in a JSON file; a number that is none stays one here."""
    return json.loads(json.dumps(_plain(value)))


def write_json(path: Path, value: Any, is_flushed: bool = True) -> None:
    """Write ``value`` (a dataclass or plain data) whole or not at all: temporary name, then rename.

    Args:
        is_flushed: whether it is on the disk when this returns; without, whoever writes many flushes all at once.
    """
    data = _plain(value)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=1, allow_nan=False)
        file.write("\n")
        if is_flushed:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)
