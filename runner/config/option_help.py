"""The part of ``--help`` that explains every axis and setting, made from their declarations. Pure."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from runner.protocol.declaration import Declaration, Entry, Role, as_text, declaration_of, default_of

# A terminal's columns, less the two by which Hydra's template indents.
_WIDTH = 78
# The column at which the explanations begin.
_EXPLANATION_AT = 30


def paragraphs(terms: Sequence[tuple[str, str]]) -> str:
    """Terms with their explanations, each wrapped to the right of its term or below it."""
    return "\n".join(line for term, explanation in terms for line in _paragraph(term, explanation))


def _paragraph(term: str, explanation: str) -> list[str]:
    width = _WIDTH - _EXPLANATION_AT
    lines = textwrap.wrap(explanation, width, break_long_words=False, break_on_hyphens=False) or [""]
    indent = " " * _EXPLANATION_AT
    if len(term) < _EXPLANATION_AT:
        return [f"{term:<{_EXPLANATION_AT}}{lines[0]}".rstrip(), *(indent + line for line in lines[1:])]
    return [term, *(indent + line for line in lines)]


def list_settings(entries: Iterable[Entry]) -> str:
    """Every axis and setting whose values are not files: its name and default, and its sentence."""
    explained = [e for e in entries if e.declaration.role is not Role.DETAIL and not e.declaration.is_group]
    # Those that belong to an axis come last: they are changed least often.
    ordered = sorted(explained, key=lambda entry: bool(entry.owner))
    return paragraphs([_term(entry.key, entry.default, entry.declaration, entry.hint) for entry in ordered])


def list_sweep_options(config: type[Any]) -> str:
    """Every option that holds for a whole sweep: its name and default, and its sentence."""
    return paragraphs(
        [
            _term(field.name, default_of(field), declaration_of(field), field.type)
            for field in dataclasses.fields(config)
            if "declaration" in field.metadata
        ]
    )


def _term(key: str, default: Any, declaration: Declaration, hint: Any) -> tuple[str, str]:
    """(``warmup=3``, its sentence)."""
    value = "" if default is dataclasses.MISSING else f"={_value(default, declaration, hint)}"
    choices = f" One of {', '.join(declaration.choices)}." if declaration.choices else ""
    return f"{key}{value}", f"{declaration.help}{choices}"


def _value(default: Any, declaration: Declaration, hint: Any) -> str:
    if default is None:
        return "null"
    if default in ({}, []):
        return str(default)
    return as_text(default, declaration, hint)
