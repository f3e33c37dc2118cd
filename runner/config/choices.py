"""The files among which an option chooses: experiments, and the values of an axis. Their lists for ``--help``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from runner.config import names, option_help
from runner.protocol.cell import ENTRIES
from runner.protocol.declaration import Entry

GROUP = "experiment"
# Bytes that are enough for a header and the first comment.
_FIRST_BYTES = 2048
# The mappings to which a user may add keys: model.kwargs, allocator.env.
_OPEN = tuple(
    key for key, entry in ENTRIES.items() if isinstance(entry.default, Mapping) and not entry.declaration.keys
)


def as_hydra_wants(words: Sequence[str]) -> list[str]:
    """The words of a command line with as many pluses as Hydra wants; with or without them, all are valid for users.

    Hydra accepts ``+experiment=x`` only for a group that the defaults lack, and ours have this one. It accepts
    ``model.kwargs.weights=x`` only if the model's file has that key, and ``+model.kwargs.weights=x`` only if it has
    not; two pluses are right for both.
    """
    return [_with_pluses(word) for word in words]


def _with_pluses(word: str) -> str:
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if key == f"+{GROUP}" and equals:
        return f"{name}={value}"
    is_open = any(name == mapping or name.startswith(f"{mapping}.") for mapping in _OPEN)
    return f"++{name}={value}" if is_open and equals else word


def files_of(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """Name -> file of every value of a group in these folders, in the order of the names.

    A file hides those of the same name in later folders, as it does for Hydra.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        for file in (folder / group).rglob("*.yaml"):
            files.setdefault(str(file.relative_to(folder / group).with_suffix("")), file)
    return dict(sorted(files.items()))


def list_experiments(folders: Sequence[Path]) -> str:
    """The experiments in these folders, each with its first line of comment."""
    files = files_of(GROUP, folders)
    return option_help.paragraphs([(names.visible(name), comment(file)) for name, file in files.items()])


def list_axes(entries: Mapping[str, Entry], folders: Sequence[Path]) -> str:
    """The axes whose values are files, each with its sentence and its values."""
    groups = [(key, entry.declaration.help) for key, entry in entries.items() if entry.declaration.is_group]
    return option_help.paragraphs([(key, f"{sentence} {_listed(files_of(key, folders))}") for key, sentence in groups])


def _listed(values: Iterable[str]) -> str:
    return f"One of {', '.join(map(names.visible, values))}."


def comment(file: Path) -> str:
    """The first comment of a file that is not a header of Hydra's (``# @package``); empty if there is none."""
    try:
        with file.open("rb") as opened:
            text = opened.read(_FIRST_BYTES).decode("utf-8", "replace")
    except OSError as error:
        return f"can't be read: {error.strerror}"
    for line in text.splitlines():
        comment = line.strip()
        if comment.startswith("#") and not comment.lstrip("# ").startswith("@"):
            return names.visible(comment.lstrip("# "))
        if comment and not comment.startswith("#"):
            break
    return ""
