"""Models in one word: ``torchvision:resnet18``, ``timm:resnet18``, ``hf:bert-base-uncased``, ``./my_model.py:build``.

A word becomes what a YAML file of the group ``model`` would hold, so that all that follows is the same for both. What
the model computes and takes is derived where torch may be imported, in ``runner.worker``.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from runner.protocol.cell import target_of
from runner.protocol.errors import RunnerError

GROUP = "model"
# A callable in a file: the path, and a function, a class or one of its methods.
FILE = re.compile(r"(?P<file>[^:]+\.py):(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")
# The forms of such a word, for those who look for a model.
FORMS: Mapping[str, str] = {
    "torchvision:NAME": "Any model of torchvision: torchvision:mobilenet_v3_large",
    "hf:NAME": "Any model of transformers: hf:distilbert-base-uncased, or a folder of weights, hf:./folder",
    "timm:NAME": "Any model of timm (PyTorch Image Models), where that is installed",
    "./FILE.py:FUNCTION": "A model of your own: docs/your_model.md",
}
_ARCHITECTURE = re.compile(r"[A-Za-z0-9_][\w.+/-]{0,199}")
_MOST_CHARACTERS = 250
# A model as torchvision's files register it: under the name of its function, or another one.
_REGISTERED = (
    re.compile(r"^@register_model\(\)\n(?:@.*\n|    .*\n|\)\n)*def (\w+)\(", re.M),
    re.compile(r"^@register_model\(name=\"(\w+)\"\)", re.M),
)
# A path of this kind, and no name of a model on the Hugging Face hub.
_IS_PATH = re.compile(r"[./~]")
_EXAMPLES = "torchvision:resnet18, hf:distilbert-base-uncased, timm:convnext_tiny or ./my_model.py:build"


def is_named(value: str) -> bool:
    """Whether a value of the axis ``model`` is a model in one word, and not the name of a YAML file."""
    return ":" in value or value.endswith(".py")


def config_of(value: str) -> dict[str, Any]:
    """What a YAML file for this model would hold.

    Raises:
        RunnerError: there is no such library, file or folder.
    """
    kind, _, rest = value.partition(":")
    if len(value) > _MOST_CHARACTERS:
        raise RunnerError(f"model={value[:60]}...: it has more than {_MOST_CHARACTERS} characters; use a shorter path")
    target, kwargs = _LIBRARIES[kind](value, rest) if kind in _LIBRARIES else (_file(value), {})
    return {"name": value, "_target_": target, "batch_size": 1, "sequence_length": None, "kwargs": kwargs}


def with_whole_path(target: str) -> str:
    """The target of a model, with the whole path of a file in it: a server starts its workers in another folder."""
    match = FILE.fullmatch(target)
    return f"{Path(match['file']).expanduser().absolute()}:{match['name']}" if match else target


def _file(value: str) -> str:
    """The target of a callable in a file, which is the word itself."""
    if value.endswith(".py"):
        raise RunnerError(
            f"model={value}: name the function in this file that returns the model and its inputs: {value}:build"
        )
    match = FILE.fullmatch(value)
    if match is None:
        raise RunnerError(f"model={value}: there is no such model; a model in one word is {_EXAMPLES}")
    if not Path(match["file"]).expanduser().is_file():
        raise RunnerError(f"model={value}: there is no file {match['file']} in {Path.cwd()}")
    return value


def _of_library(library: str) -> Callable[[str, str], tuple[str, dict[str, Any]]]:
    def config(value: str, rest: str) -> tuple[str, dict[str, Any]]:
        return target_of(library), {"architecture": _architecture(value, rest)}

    return config


def _architecture(value: str, rest: str) -> str:
    if not _ARCHITECTURE.fullmatch(rest):
        raise RunnerError(f"model={value}: {rest!r} is no name of one; a model in one word is {_EXAMPLES}")
    return rest


def _hugging_face(value: str, rest: str) -> tuple[str, dict[str, Any]]:
    """A folder with config.json, in its place or in the cache of the hub; else the name, for random weights."""
    target = target_of("transformers")
    if _IS_PATH.match(rest):
        folder = Path(rest).expanduser().absolute()
        if not (folder / "config.json").is_file():
            raise RunnerError(
                f"model={value}: {folder} is no folder with a config.json in it; save_pretrained() writes such a folder"
            )
        return target, {"folder": str(folder)}
    snapshot = _snapshot(_architecture(value, rest), os.environ)
    return target, {"architecture": rest} if snapshot is None else {"folder": str(snapshot)}


def _snapshot(name: str, environment: Mapping[str, str]) -> Path | None:
    """The folder in which the cache of the Hugging Face hub keeps a model; None if it has none.

    Its layout: https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    """
    home = Path(environment.get("HF_HOME", Path(environment.get("XDG_CACHE_HOME", "~/.cache"), "huggingface")))
    cache = Path(environment.get("HF_HUB_CACHE", home / "hub")).expanduser()
    kept = cache / f"models--{name.replace('/', '--')}"
    try:
        snapshot = kept / "snapshots" / (kept / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return snapshot if (snapshot / "config.json").is_file() else None


def _torchvision(value: str, rest: str) -> tuple[str, dict[str, Any]]:
    """A name of torchvision's own, as far as its files tell: importing it would take seconds."""
    known = _names_of_torchvision()
    if _architecture(value, rest) not in known and known:
        near = difflib.get_close_matches(rest, known, n=1)
        raise RunnerError(
            f"model={value}: torchvision has no model {rest}{f'; did you mean {near[0]}?' if near else ''}; see "
            "torchvision.models.list_models()"
        )
    return target_of("torchvision"), {"architecture": rest}


@functools.cache
def _names_of_torchvision() -> frozenset[str]:
    """The names of the functions that torchvision registers as models; none where it is not installed."""
    found = importlib.util.find_spec("torchvision")
    if found is None or not found.submodule_search_locations:
        return frozenset()
    names: set[str] = set()
    for file in (Path(found.submodule_search_locations[0]) / "models").rglob("*.py"):
        text = file.read_text(encoding="utf-8", errors="replace")
        names.update(*(pattern.findall(text) for pattern in _REGISTERED))
    return frozenset(names)


_LIBRARIES: Mapping[str, Callable[[str, str], tuple[str, dict[str, Any]]]] = {
    "torchvision": _torchvision,
    "timm": _of_library("timm"),
    "hf": _hugging_face,
}
