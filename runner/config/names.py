"""What words, names and values from outside may contain; checked before anything is composed, launched or written.

A name becomes a param in MLflow, a part of its filters, a label in pictures, HTML, Markdown and terminals, and a part
of paths. Each of these gives some characters a meaning of their own, so a name may contain none of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from urllib.parse import urlsplit

from runner.protocol.errors import RunnerError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_NAME_IN_WORDS = "letters, digits and . _ + -, at most 100 of them, not beginning with a sign"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# A model in one word says where it is from: a library, or a file. None of its characters means anything to those above.
_MODEL = re.compile(r"[\w./~][\w.+/~@ -]{0,249}(:[\w./~][\w.+/~@ -]{0,249})?")
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+|[^:]+\.py:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
# MLflow gets the path of its database in a SQLite URI, which ends the path at the first two and decodes the third; jobs
# get the path on Hydra's command line, which interprets the others.
_NOT_IN_PATHS = ("?", "#", "%", "\\", "${")

_LONGEST_WORD = 10_000
_LONGEST_TEXT = 4_000
_DEEPEST = 32
_INTEGER = 2**63


def check_words(words: Sequence[str]) -> None:
    """Refuse arguments of a command line that a terminal, a log or Hydra would misread.

    Raises:
        RunnerError: an argument is too long or has invisible characters; the message shows the first one escaped.
    """
    for number, word in enumerate(words, 1):
        if len(word) > _LONGEST_WORD:
            raise RunnerError(
                f"argument {number} ({word[:40]!a}...) has more than {_LONGEST_WORD} characters; shorten it"
            )
        if not word.isprintable():
            raise RunnerError(f"argument {number} has characters that can't be seen: {word[:200]!a}; leave them out")


def check_name(option: str, name: str) -> None:
    """Refuse a text that is not a name.

    Raises:
        RunnerError: ``name`` is too long, or has characters that a name may not have.
    """
    if not NAME.fullmatch(name):
        raise RunnerError(f"{option}={_quoted(name)}: a name has {_NAME_IN_WORDS}")


def check_address(option: str, address: str) -> None:
    """Refuse the address of an MLflow server that is none, or that has a password in it.

    Raises:
        RunnerError: what is wrong; no password is in the message.
    """
    parts = urlsplit(address)
    _, at, place = parts.netloc.rpartition("@")
    if at:
        raise RunnerError(
            f"{option}={parts.scheme}://...@{place}: a user or password in the address would be printed, stored and "
            f"uploaded; write {option}={parts.scheme}://{place}, and put them into the environment variables "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    if parts.scheme not in ("http", "https") or not place:
        raise RunnerError(
            f"{option}={address}: it must be the http:// or https:// address of an MLflow server, or be left out for a "
            "database in the results folder"
        )


def check_model(option: str, name: str) -> None:
    """Refuse a text that is neither a name nor a model in one word.

    Raises:
        RunnerError: ``name`` has characters that a model may not have.
    """
    if not _MODEL.fullmatch(name):
        raise RunnerError(f"{option}={_quoted(name)}: a model's name has {_NAME_IN_WORDS}; one in a file / : too")


def check_target(option: str, target: str) -> None:
    """Refuse a text that names no callable.

    Raises:
        RunnerError: ``target`` is neither the dotted path of a callable nor one in a file.
    """
    if not _TARGET.fullmatch(target):
        raise RunnerError(
            f"{option}={_quoted(target)}: it must name a callable, like my_package.my_model or ./my_model.py:build"
        )


def check_variables(option: str, variables: Mapping[str, str]) -> None:
    """Refuse variables that can't be in an environment.

    Raises:
        RunnerError: a name is not one that an environment variable can have.
    """
    for name in variables:
        if not _VARIABLE.fullmatch(name):
            raise RunnerError(
                f"{option}: {_quoted(name)} is not a name for an environment variable; use letters, digits and _"
            )


def check_folder(option: str, path: str) -> None:
    """Refuse a path that MLflow or Hydra would take for another one.

    Raises:
        RunnerError: ``path`` is empty, or has a character with a meaning of its own there.
    """
    misread = next((text for text in _NOT_IN_PATHS if text in path), None)
    if misread or not path.strip():
        raise RunnerError(
            f"{option}={_quoted(path)}: {f'{misread!r} in its path would be misread' if misread else 'it is empty'}; "
            "choose another folder"
        )


def check_values(option: str, value: object, depth: int = 0) -> None:
    """Refuse texts with invisible characters and numbers that can't be computed with, wherever they are in ``value``.

    Raises:
        RunnerError: ``value`` contains one; the message names the option and the value.
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
            raise RunnerError(
                f"{option}={value[:40]!a}...: it has {len(value)} characters; use at most {_LONGEST_TEXT}"
            )
        if not value.isprintable():
            raise RunnerError(f"{option}={value!a}: it has characters that can't be seen; leave them out")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise RunnerError(f"{option}={value}: it must be a finite number")
    elif isinstance(value, int):
        if abs(value) >= _INTEGER:
            raise RunnerError(f"{option}: a number of {value.bit_length()} bits is too large; use one of at most 63")
    elif value is not None and not isinstance(value, (bool, Enum)):
        raise RunnerError(f"{option}: a value of type {type(value).__name__} is neither text nor number")


def _quoted(text: str) -> str:
    return text if text.isprintable() and len(text) <= 200 else f"{text[:100]!a}"


def visible(text: str) -> str:
    """The text with escapes in place of characters that are invisible or that a terminal obeys.

    Line breaks and tabs stay as they are.
    """
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
