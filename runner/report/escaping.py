"""Escaping for the formats of a report, because a stored file may contain any name. Pure."""

from __future__ import annotations

import re


def markdown(text: object) -> str:
    """The text escaped for Markdown, in tables as well; it can't end its line."""
    return re.sub(r"([\\|*`\[\]])", r"\\\1", " ".join(str(text).split())).replace("<", "&lt;")


def cell(value: object) -> object:
    """A value that no spreadsheet takes for a formula: text that begins like one gets an apostrophe before it."""
    is_formula = isinstance(value, str) and len(value) > 1 and value[0] in "=+-@\t\r"
    return f"'{value}" if is_formula else value
