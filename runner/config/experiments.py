"""Experiments: both ways to name one on the command line, and the list that ``--help`` shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.config import names

GROUP = "experiment"
# Enough for a header and the first comment.
_FIRST_BYTES = 2048
_NAME_WIDTH = 26


def as_default(words: Sequence[str]) -> list[str]:
    """The words with ``+experiment=x`` written as ``experiment=x``.

    Both are valid. Hydra takes the plus for a group that the defaults don't have, and they have this one, as none.
    """
    return [word[1:] if word.startswith(f"+{GROUP}=") else word for word in words]


def listing(folders: Sequence[Path]) -> str:
    """One line per experiment in these folders: its name and its first line of comment.

    An experiment hides those of the same name in later folders, as it does for Hydra.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        for file in sorted((folder / GROUP).rglob("*.yaml")):
            files.setdefault(str(file.relative_to(folder / GROUP).with_suffix("")), file)
    return "\n".join(f"  {names.visible(name):<{_NAME_WIDTH}}{_comment(files[name])}" for name in sorted(files))


def _comment(file: Path) -> str:
    """The first comment of a file that is no header of Hydra's (``# @package``); empty where there is none."""
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
