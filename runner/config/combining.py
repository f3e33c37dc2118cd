"""The configurations of a large matrix, each put together from the parts of a few that Hydra composed.

Hydra takes a tenth of a second per configuration, so that ten thousand cells would take twenty minutes. But a value of
an axis changes its own part of a configuration (``allocator=jemalloc`` changes ``allocator``) and no other, unless its
file says otherwise. So each value is composed once, beside the first values of the other axes, and a combination takes
the parts of its values. What could act on another part, like a scenario with defaults of its own, is composed in every
combination with the rest. Whether parts are really independent is looked at in everything that Hydra composes, and a
sample of combinations is composed both ways: after one difference, Hydra composes every combination.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from runner.config import named_models, yaml_guard
from runner.config.choices import files_of
from runner.protocol import stored
from runner.protocol.cell import ENTRIES
from runner.protocol.declaration import Entry
from runner.protocol.errors import RunnerError

Plain = dict[str, Any]
Combination = Mapping[str, str]
Items = tuple[tuple[str, str], ...]

# A matrix of fewer combinations is composed by Hydra alone.
LEAST = 30
# Combinations that are composed both ways.
_SAMPLE = 4

# A file that names another place for its keys, or other files.
_ACTS_ELSEWHERE = re.compile(r"^\s*#\s*@|^['\"]?defaults['\"]?\s*:", re.M)
# A reference to one key by its whole name; resolvers, relative references and nested ones are Hydra's.
_REFERENCE = re.compile(r"\$\{([a-z_]\w*(?:\.[A-Za-z_]\w*)*)\}")
# What the runner itself answers is the same in every configuration of a process.
_ANSWERED = re.compile(r"\$\{runner\.\w+:\}")
_MISSING = "???"


@dataclass(frozen=True)
class Composed:
    """One configuration as Hydra composed it."""

    written: Plain
    """With references as they stand in the files."""
    resolved: Plain
    """With the values of the references in their place."""


class _DependsError(Exception):
    """A part of a configuration depends on another one."""


class Combiner:
    """Composes the combinations of a matrix.

    Args:
        spans: override key -> values; the product of the first is the matrix, the others are further cells.
        compose: the overrides of one configuration -> the configuration, by Hydra.
        folders: where the files of values are, in the order in which Hydra looks.
    """

    def __init__(
        self,
        spans: Sequence[Mapping[str, Sequence[str]]],
        compose: Callable[[Combination], Composed],
        folders: Sequence[Path],
    ) -> None:
        self._choices, self._compose = spans[0], compose
        self._first = {key: values[0] for key, values in self._choices.items()}
        values: dict[str, list[str]] = {}
        for span in spans:
            for key, some in span.items():
                values.setdefault(key, []).extend(some)
        self._joint = {key for key, some in values.items() if not _keeps_to_its_part(key, some, folders)}
        # What stands in for the joint keys has to be composed with all that has the same part.
        parts = {_part(key) for key in self._joint}
        self._joint |= {key for key in values if _part(key) in parts}
        self._bases: dict[Items, Composed] = {}
        self._parts: dict[tuple[Items, Items], Any] = {}
        self._is_combining: bool | None = None

    def __call__(self, combination: Combination) -> Plain:
        """The configuration of a combination, with all references resolved; it must not be changed."""
        if self._is_combining is None:
            self._is_combining = prod(map(len, self._choices.values())) >= LEAST and self._holds_for_a_sample()
        if self._is_combining:
            try:
                return self._combined(combination)
            except _DependsError:
                self._is_combining = False
        return self._compose(combination).resolved

    def _holds_for_a_sample(self) -> bool:
        """Whether combinations from everywhere in the matrix are the same in both ways."""
        draw = random.Random(0)
        sample = [{key: values[-1] for key, values in self._choices.items()}]
        sample += [{key: draw.choice(values) for key, values in self._choices.items()} for _ in range(_SAMPLE - 1)]
        try:
            return all(_same(self._combined(one), self._compose(one).resolved) for one in sample)
        except _DependsError:
            return False

    def _combined(self, combination: Combination) -> Plain:
        joint = tuple((key, value) for key, value in combination.items() if key in self._joint)
        base = self._base(joint)
        parts: dict[str, list[tuple[str, str]]] = {}
        for key, value in combination.items():
            if key not in self._joint:
                parts.setdefault(_part(key), []).append((key, value))
        own = {name: self._composed_part(name, joint, tuple(items)) for name, items in parts.items()}
        return _resolved({**base.written, **own})

    def _base(self, joint: Items) -> Composed:
        """The configuration with these joint values and the first values of all other axes."""
        if joint not in self._bases:
            self._bases[joint] = self._checked({**self._first, **dict(joint)})
        return self._bases[joint]

    def _composed_part(self, name: str, joint: Items, items: Items) -> Any:
        """One part of the configuration, composed beside the first values of the others."""
        if (joint, items) not in self._parts:
            base = self._base(joint)
            if all(self._first.get(key) == value for key, value in items):
                composed = base
            else:
                others = {key: value for key, value in self._first.items() if key in self._joint or _part(key) != name}
                composed = self._checked({**others, **dict(joint), **dict(items)})
                if not _same(_without(base.written, name), _without(composed.written, name)):
                    raise _DependsError
            self._parts[joint, items] = composed.written.get(name)
        return self._parts[joint, items]

    def _checked(self, combination: Combination) -> Composed:
        """A combination as Hydra composes it, whose references this module resolves as OmegaConf does.

        Raises:
            _DependsError: it does not.
        """
        composed = self._compose(combination)
        written = _answered(composed.written, composed.resolved)
        if not _same(_resolved(written), composed.resolved):
            raise _DependsError
        return Composed(written, composed.resolved)


def _part(key: str) -> str:
    """The part of a configuration that an override is about."""
    return key.lstrip("+").partition(".")[0]


def _keeps_to_its_part(key: str, values: Sequence[str], folders: Sequence[Path]) -> bool:
    """Whether these values of a key change nothing but its own part, as far as their files tell."""
    name = _part(key)
    if name not in _OWNERS:
        return False
    if key.lstrip("+") != name or not ENTRIES[name].declaration.is_group:
        return True  # a value of a configuration is set after all files were read
    files = files_of(name, folders)
    try:
        from_files = [value for value in values if name != named_models.GROUP or not named_models.is_named(value)]
        texts = [stored.read_text(files[value], yaml_guard.MOST_BYTES) for value in from_files]
    except (KeyError, RunnerError):
        return False  # Hydra has the message
    return not any(map(_ACTS_ELSEWHERE.search, texts))


_OWNERS: Mapping[str, Entry] = {key: entry for key, entry in ENTRIES.items() if "." not in key}


def _without(data: Plain, name: str) -> Plain:
    return {key: value for key, value in data.items() if key != name}


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of equal types: 1, 1.0 and True are three values."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _answered(written: Any, resolved: Any) -> Any:
    """What is written, with the runner's own answers in their place."""
    if isinstance(written, dict):
        return {key: _answered(value, resolved[key]) for key, value in written.items()}
    if isinstance(written, list):
        return [_answered(*pair) for pair in zip(written, resolved, strict=True)]
    return resolved if isinstance(written, str) and _ANSWERED.fullmatch(written) else written


def _refers(value: Any) -> bool:
    """Whether a part has a reference or a value that is missing."""
    if isinstance(value, dict):
        return any(map(_refers, value.values()))
    if isinstance(value, list):
        return any(map(_refers, value))
    return isinstance(value, str) and ("${" in value or value == _MISSING)


def _resolved(written: Plain) -> Plain:
    """A configuration with the values of its references in their place; parts without any are the same objects.

    Raises:
        _DependsError: a reference is of a kind that only OmegaConf can resolve, or a value is missing.
    """
    return {name: _with_values(part, written) if _refers(part) else part for name, part in written.items()}


def _with_values(value: Any, root: Plain) -> Any:
    if isinstance(value, dict):
        return {key: _with_values(inner, root) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with_values(inner, root) for inner in value]
    if not _refers(value):
        return value
    whole = _REFERENCE.fullmatch(value)
    if whole:
        return _referent(whole[1], root)
    text = _REFERENCE.sub(lambda match: str(_referent(match[1], root)), value)
    if "${" in text or "\\" in value or text == _MISSING:
        raise _DependsError
    return text


def _referent(key: str, root: Plain) -> Any:
    """The value that a reference names: a word or a whole number, or nothing."""
    found: Any = root
    for name in key.split("."):
        if not isinstance(found, dict) or name not in found:
            raise _DependsError
        found = found[name]
    if type(found) not in (int, str, type(None)) or _refers(found):
        raise _DependsError
    return found
