"""The part of ``--help`` that explains every axis and setting, made from their declarations. Pure."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable
from typing import Any

from runner.protocol.declaration import Declaration, Entry, Role, as_text, declaration_of, default_of

_WIDTH = 80
_INDENT = 2
_HELP_AT = 32


def settings(entries: Iterable[Entry]) -> str:
    """Every axis and setting that is no choice among files: its name and default, and its sentence."""
    explained = [e for e in entries if e.declaration.role is not Role.DETAIL and not e.declaration.is_group]
    # Those that belong to an axis come last: they are changed least often.
    ordered = sorted(explained, key=lambda entry: bool(entry.owner))
    return "\n".join(_line(entry.key, entry.default, entry.declaration, entry.hint) for entry in ordered)


def of_sweep(config: type[Any]) -> str:
    """The same of what holds for a whole sweep."""
    return "\n".join(
        _line(field.name, default_of(field), declaration_of(field), field.type)
        for field in dataclasses.fields(config)
        if "declaration" in field.metadata
    )


def _line(key: str, default: Any, declaration: Declaration, hint: Any) -> str:
    """``warmup=3   Untimed iterations ...``, wrapped below itself."""
    shown = "" if default is dataclasses.MISSING else f"={_value(default, declaration, hint)}"
    choices = f" One of {', '.join(declaration.choices)}." if declaration.choices else ""
    name = f"{key}{shown}"
    head = name.ljust(_HELP_AT - _INDENT - 1) + " "
    text = textwrap.wrap(declaration.help + choices, _WIDTH - _HELP_AT, break_long_words=False, break_on_hyphens=False)
    first, rest = (text[0], text[1:]) if len(name) < _HELP_AT - _INDENT else ("", text)
    lines = [f"{head}{first}".rstrip(), *(" " * (_HELP_AT - _INDENT) + line for line in rest)]
    return "\n".join(lines)


def _value(default: Any, declaration: Declaration, hint: Any) -> str:
    if default is None:
        return "null"
    return as_text(default, declaration, hint) if default not in ({}, []) else ("{}" if default == {} else "[]")
