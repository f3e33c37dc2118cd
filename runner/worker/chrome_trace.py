"""Reads the trace of torch's profiler, which is JSON only as long as no label in it needs an escape.

torch 2.8 writes labels as they are: quotes, backslashes, line breaks and bytes that are no UTF-8 in the name of a range
make the file unreadable. Each event is then read by itself, with its name escaped; what can't be read is counted.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]

# The line that ends an event, see ChromeTraceLogger of Kineto (libkineto/src/output_json.cpp).
_END = re.compile(r"\n  \},?\n")
# An event from its begin to its name, the name, and the rest.
_NAMED = re.compile(
    r'(\s*\{\s*"ph": "X", "cat": "\w+", "name": )"(.*?)"(, "pid": \S+, "tid": \S+,\s*"ts": .*)', re.DOTALL
)


def read(data: bytes) -> tuple[list[Event], int]:
    """The events of a trace, and the number of those that could not be read.

    Raises:
        ValueError: not a single event can be read.
    """
    text = data.decode(errors="replace")
    try:
        events = json.loads(text)["traceEvents"]
        return [event for event in events if isinstance(event, dict)], 0
    except (ValueError, KeyError, TypeError):
        pieces = [_event(piece) for piece in _pieces(text)]
    readable = [event for event in pieces if event is not None]
    if not readable:
        raise ValueError("the profiler's trace can't be read")
    return readable, len(pieces) - len(readable)


def pack(file: Path) -> int:
    """Replace a trace by its gzipped form, ``trace.json`` by ``trace.json.gz``; returns how many events are left out.

    A trace that is JSON is kept as it is. Of any other, the events that can be read are kept.
    """
    data, left_out = file.read_bytes(), 0
    # One event at a time: a whole trace as Python's objects takes ten times its size.
    if not _is_sound(data):
        try:
            json.loads(data)
        except ValueError:
            events, left_out = read(data)
            data = json.dumps({"displayTimeUnit": "ms", "traceEvents": events}).encode()
    with gzip.open(file.with_name(f"{file.name}.gz"), "wb", compresslevel=6) as packed:
        packed.write(data)
    file.unlink()
    return left_out


def _is_sound(data: bytes) -> bool:
    """Whether every event of a trace that torch laid out is JSON by itself."""
    try:
        sound = [_is_json(piece) for piece in _pieces(data.decode())]
    except UnicodeDecodeError:
        return False
    return bool(sound) and all(sound)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _pieces(text: str) -> Iterator[str]:
    """The text of each event of a trace, as torch lays it out."""
    position = text.find('"traceEvents": [') + len('"traceEvents": [')
    for end in _END.finditer(text, position):
        yield f"{text[position : end.start()]}}}"
        position = end.end()


def _event(text: str) -> Event | None:
    """An event, with its name escaped where that makes it readable; None if it can't be read."""
    named = _NAMED.fullmatch(text)
    for attempt in (text, f"{named[1]}{json.dumps(named[2])}{named[3]}" if named else ""):
        try:
            event = json.loads(attempt)
        except ValueError:
            continue
        return event if isinstance(event, dict) else None
    return None
