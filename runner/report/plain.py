"""Text that stays itself in the formats of a report: a name can be anything in a stored file. Pure."""

from __future__ import annotations

import re


def markdown(text: object) -> str:
    """Text that stays itself in Markdown, also in a table, and can't end its line."""
    return re.sub(r"([\\|*`\[\]])", r"\\\1", " ".join(str(text).split())).replace("<", "&lt;")


def cell(value: object) -> object:
    """A value that a spreadsheet takes for no formula: text that begins like one gets an apostrophe before it."""
    is_formula = isinstance(value, str) and len(value) > 1 and value[0] in "=+-@\t\r"
    return f"'{value}" if is_formula else value
