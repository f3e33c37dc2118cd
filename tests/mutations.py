"""Damaged and hostile versions of recorded files: bytes, lines, fields and values changed, cut off, or foreign."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

# As values of a JSON or YAML field.
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 10**9, 2**63, 10**30, -(10**30), 0.0, -0.0, 0.5, -1.5, 1e-320, 1e308, -1e308,
    "", "-", "abc", "0", "-1", "999999999", "nan", "on", "../../x", "/etc/passwd", "<script>alert(1)</script>",
    "[red]x[/red] [/]", "$\\frac$ | `x`", "=1+1", "a\nb\r\tc", "\x1b[31m\x07", "\u202egnp", "\x00", "²", "x" * 3000,
    [], {}, [[]], [None], [1, "a"], {"a": 1}, [1e308, 1e308], [0.01] * 3, ["step_0"], {"": {"": []}},
)  # fmt: skip
# As pieces of a text.
PIECES = (
    "NaN", "-Infinity", "1e999", "9" * 5000, "-1", "[" * 200, "{\"a\":" * 120, "]" * 9, '"', "'", ",", ";", ":", "\n",
    "\r", "\x00", "\x1b[2J", "\u202e", "\ufeff", "\\ud800", "é", "<script>", "&a *a", "!!python/object:os.system x",
    "<<: *a", "\t", " ", "%", "$", "${oc.env:HOME}", "%YAML 9.9", "---", "...", "#", "=", "|", ">", "?", "- ", "~",
    "1.5e308", "0x10", "1_000", "٣", "²", "\u2028", "\x85", "step_0", "exec", "<not counted>", "x" * 70000,
)  # fmt: skip


def of_json(value: Any, source: random.Random) -> Any:
    """A copy with a few fields changed, removed, added or swapped."""
    changed = copy.deepcopy(value)
    for _ in range(source.randint(1, 3)):
        if not isinstance(changed, (dict, list)) or source.random() < 0.02:
            return copy.deepcopy(source.choice(VALUES))
        _change(changed, source)
    return changed


def _change(value: Any, source: random.Random) -> None:
    """Go down some of the way, and do something there."""
    place = value
    while place:
        key = source.choice(list(place)) if isinstance(place, dict) else source.randrange(len(place))
        if not isinstance(place[key], (dict, list)) or not place[key] or source.random() < 0.25:
            what = source.randrange(6)
            if what == 0:
                del place[key]
            elif what == 1 and isinstance(place, list):
                place.append(copy.deepcopy(place[key]))
            elif what == 1:
                place[str(source.choice(VALUES))[:200]] = copy.deepcopy(place[key])
            elif what == 2 and isinstance(place, list):
                source.shuffle(place)
            elif what == 3 and type(place[key]) in (int, float):
                place[key] = source.choice((-place[key], place[key] * 1e30, place[key] + 1, str(place[key])))
            else:
                place[key] = copy.deepcopy(source.choice(VALUES))
            return
        place = place[key]


def of_text(text: str, source: random.Random, separators: Sequence[str] = (",", ";", ":", " ")) -> str:
    """A copy with a few lines, fields or characters changed; or cut off."""
    for _ in range(source.randint(1, 4)):
        what = source.randrange(8)
        lines = text.split("\n")
        line = source.randrange(len(lines))
        if what == 0:
            text = text[: source.randint(0, len(text))]
        elif what == 1:
            del lines[line]
            text = "\n".join(lines)
        elif what == 2:
            lines.insert(source.randrange(len(lines) + 1), lines[line])
            text = "\n".join(lines)
        elif what == 3:
            separator = source.choice(separators)
            fields = lines[line].split(separator)
            field = source.randrange(len(fields))
            fields[field : field + 1] = source.choice(([], [fields[field]] * 2, [source.choice(PIECES)]))
            lines[line] = separator.join(fields)
            text = "\n".join(lines)
        elif what == 4:
            at = source.randint(0, len(text))
            text = text[:at] + source.choice(PIECES) + text[at + source.randrange(3) :]
        elif what == 5:
            at = source.randint(0, len(text))
            text = text[:at] + chr(source.choice((source.randrange(128), source.randrange(0xD800)))) + text[at + 1 :]
        elif what == 6:
            begin = source.randint(0, len(text))
            piece = text[begin : begin + source.choice((1, 3, 30, 300))]
            text = text[:begin] + piece * source.choice((2, 50)) + text[begin:]
        else:
            other = source.randrange(len(lines))
            lines[line], lines[other] = lines[other], lines[line]
            text = "\n".join(lines)
    return text


def of_bytes(data: bytes, source: random.Random) -> bytes:
    """A copy with a few bytes changed, removed or repeated; or cut off."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at, what = source.randint(0, len(changed)), source.randrange(6)
        if what == 0:
            del changed[at:]
        elif what == 1:
            del changed[at : at + source.choice((1, 2, 4, 8, 100))]
        elif what == 2:
            changed[at:at] = changed[at : at + source.choice((1, 4, 16, 200))]
        elif what == 3:
            changed[at : at + 4] = source.choice((b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\1\0\0\0"))
        else:
            changed[at : at + 1] = bytes([source.randrange(256)])
    return bytes(changed)


def of_json_file(value: Any, source: random.Random) -> bytes:
    """The file of a JSON value, damaged as data, as text or as bytes."""
    what = source.random()
    if what < 0.6:
        return json.dumps(of_json(value, source)).encode()
    text = json.dumps(value, indent=source.choice((None, 1)))
    if what < 0.85:
        return of_text(text, source, (",", ":", " ", '"')).encode()
    return of_bytes(text.encode(), source)


def of_text_file(text: str, source: random.Random) -> bytes:
    """The file of a text, damaged as text or as bytes."""
    return of_text(text, source).encode() if source.random() < 0.75 else of_bytes(text.encode(), source)


Damage = Callable[[random.Random], bytes]
