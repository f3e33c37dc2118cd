"""Values as text of Hydra's override grammar: what is written here is read back as the same value.

Hydra takes every value as text, also those that come from YAML. Commas, ``=``, ``#``, quotes and brackets mean
something in that text, and ``null`` or ``1e3`` are no words in it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from runner.protocol.errors import RunnerError

# Texts that the grammar reads as themselves without quotes; but those of _KEYWORD are other values.
_WORD = re.compile(r"[A-Za-z_/][\w./+@-]*", re.ASCII)
_KEYWORD = re.compile(r"true|false|null|nan|inf", re.IGNORECASE)
# Texts that mean the same with quotes and without: words and numbers.
_PLAIN = re.compile(r"[\w./+-]+", re.ASCII)
# What Hydra's parser writes with a backslash although the text means the same without: torchvision\:resnet18.
_ESCAPED_COLON = re.compile(r"[\w./+:-]+", re.ASCII)
# Hydra's grammar: backslashes are escapes only before a quote, and the closing quote is one.
_QUOTES = re.compile(r'(\\*)("|\Z)')
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def quoted(value: object) -> str:
    """A text in quotes that Hydra and OmegaConf read back as it is."""
    # OmegaConf takes ${ for the beginning of an interpolation, and half of the backslashes before it for escapes.
    literal = _INTERPOLATION.sub(lambda match: match[1] * 2 + "\\${", str(value))
    return f'"{_QUOTES.sub(_escape, literal)}"'


def _escape(match: re.Match[str]) -> str:
    return match[1] * 2 + ('\\"' if match[2] else "")


def plain(text: str) -> str:
    """A value as Hydra's parser writes it, without the escapes that it needs not."""
    without = text.replace("\\:", ":")
    return without if _ESCAPED_COLON.fullmatch(without) else text


def as_word(text: str) -> str:
    """A value that is text already, such as that of a rule, with quotes only if the grammar would misread it."""
    return text if _PLAIN.fullmatch(text) else quoted(text)


def text_of(value: Any) -> str:
    """A value of a YAML file as override text; a text that needs no quotes gets none.

    Raises:
        RunnerError: a mapping has a key that the grammar can't express.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(key)}:{text_of(part)}" for key, part in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ",".join(map(text_of, value)) + "]"
    text = str(value)
    return text if _WORD.fullmatch(text) and not _KEYWORD.fullmatch(text) else quoted(text)


def _key(key: object) -> str:
    text = str(key)
    if not _WORD.fullmatch(text) or (isinstance(key, str) and _KEYWORD.fullmatch(text)):
        raise RunnerError(f"the key {text!r} of a mapping must be a word of letters, digits and _ . / + @ -")
    return text
