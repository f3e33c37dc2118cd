"""What words, names and values from outside may hold: checked before anything is composed, launched or written.

A name becomes a param in MLflow, a part of its filters, a label in pictures, HTML, Markdown and terminals, and a part
of paths. All of these read some characters as their own, so a name has none of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from enum import Enum

from runner.protocol.errors import RunnerError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_NAME_IN_WORDS = "letters, digits and . _ + -, at most 100 of them, not beginning with a sign"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
# SQLite's URI, in which MLflow is told the database, ends the path at the first two and decodes the third; Hydra's
# command line, which every job gets the folder by, reads the others.
_NOT_IN_PATHS = ("?", "#", "%", "\\", "${")

_LONGEST_WORD = 10_000
_LONGEST_TEXT = 4_000
_DEEPEST = 32
_INTEGER = 2**63


def check_words(words: Sequence[str]) -> None:
    """Refuse arguments of a command line that a terminal, a log or Hydra would misread.

    Raises:
        RunnerError: names the first, made visible.
    """
    for number, word in enumerate(words, 1):
        if len(word) > _LONGEST_WORD:
            raise RunnerError(f"argument {number} ({word[:40]!a}...) has more than {_LONGEST_WORD} characters")
        if not word.isprintable():
            raise RunnerError(f"argument {number} has characters that can't be seen: {word[:200]!a}; leave them out")


def check_name(option: str, name: str) -> None:
    """Refuse what is no name.

    Raises:
        RunnerError: it has other characters than names have.
    """
    if not NAME.fullmatch(name):
        raise RunnerError(f"{option}={_shown(name)}: a name has {_NAME_IN_WORDS}")


def check_target(option: str, target: str) -> None:
    """Refuse what is no dotted path of a callable.

    Raises:
        RunnerError: it is none.
    """
    if not _TARGET.fullmatch(target):
        raise RunnerError(
            f"{option}={_shown(target)}: it must be the dotted path of a callable, like my_package.my_model"
        )


def check_variables(option: str, variables: Mapping[str, str]) -> None:
    """Refuse what can't be an environment.

    Raises:
        RunnerError: a name that no variable has.
    """
    for name in variables:
        if not _VARIABLE.fullmatch(name):
            raise RunnerError(f"{option}: {_shown(name)} is no name of an environment variable")


def check_folder(option: str, path: str) -> None:
    """Refuse a path that MLflow or Hydra would take for another.

    Raises:
        RunnerError: it is empty, or has one of those characters.
    """
    misread = next((text for text in _NOT_IN_PATHS if text in path), None)
    if misread or not path.strip():
        raise RunnerError(
            f"{option}={_shown(path)}: {f'{misread!r} in its path would be misread' if misread else 'it is empty'}; "
            "choose another folder"
        )


def check_values(option: str, value: object, depth: int = 0) -> None:
    """Refuse texts with invisible characters, and numbers that can't be computed with, wherever they are in ``value``.

    Raises:
        RunnerError: names the option and the value.
    """
    if depth > _DEEPEST:
        raise RunnerError(f"{option}: it nests more than {_DEEPEST} levels deep")
    if isinstance(value, Mapping):
        for key, child in value.items():
            check_values(option, key, depth)
            check_values(f"{option}.{key}" if option else str(key), child, depth + 1)
    elif isinstance(value, (list, tuple)):
        for index, child in enumerate(value):
            check_values(f"{option}[{index}]", child, depth + 1)
    elif isinstance(value, str) and not isinstance(value, Enum):
        if len(value) > _LONGEST_TEXT:
            raise RunnerError(f"{option}={value[:40]!a}...: it has {len(value)} characters; {_LONGEST_TEXT} is all")
        if not value.isprintable():
            raise RunnerError(f"{option}={value!a}: it has characters that can't be seen; leave them out")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise RunnerError(f"{option}={value}: it must be a finite number")
    elif isinstance(value, int):
        if abs(value) >= _INTEGER:
            raise RunnerError(f"{option}: a number of {value.bit_length()} bits is more than can be computed with")
    elif value is not None and not isinstance(value, (bool, Enum)):
        raise RunnerError(f"{option}: a value of type {type(value).__name__} is neither text nor number")


def _shown(text: str) -> str:
    return text if text.isprintable() and len(text) <= 200 else f"{text[:100]!a}"


def visible(text: str) -> str:
    """Text in which a character that a terminal obeys, or that is not seen, stands as its escape.

    Line breaks and tabs stay.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
