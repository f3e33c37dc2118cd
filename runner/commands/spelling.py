"""Slips in the words of a sweep, answered with what was meant before Hydra reads them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from runner.commands import COMMANDS
from runner.config import choices
from runner.machine import installation
from runner.protocol.cell import ENTRIES
from runner.protocol.errors import RunnerError

# Options of Hydra's that take the next word as their value, and those that do so if it is one of these.
WITH_VALUE = {"-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "--experimental-rerun"}
INFO = {"all", "config", "defaults", "defaults-tree", "plugins", "searchpath"}
_CFG = ("job", "hydra", "all")
# All options of a sweep: Hydra's, then those that runner.commands.sweep turns into settings.
OPTIONS = (
    *("--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun", "--info"),
    *("--shell-completion", "--config-path", "--config-name", "--config-dir", "--experimental-rerun"),
    *("--dry-run", "--mlruns", "--no-wait", "--wide"),
)
_SHORT = ("-h", "-c", "-p", "-r", "-m", "-sc", "-cp", "-cn", "-cd", "-i")
# What people write who know other programs.
_MEANT_OPTION = {"-n": "--dry-run", "--dryrun": "--dry-run", "-v": "--version", "-V": "--version"}
_MEANT_COMMAND = {
    **dict.fromkeys(("ls", "sweeps", "experiments", "models", "status", "history"), "list"),
    **dict.fromkeys(("rm", "remove", "del", "clean"), "delete"),
    **dict.fromkeys(("cat", "view", "open", "report", "results"), "show"),
    **dict.fromkeys(("diff", "rank", "cmp"), "compare"),
    **dict.fromkeys(("why",), "explain"),
    **dict.fromkeys(("continue", "restart"), "resume"),
    **dict.fromkeys(("check", "info"), "doctor"),
    **dict.fromkeys(("mlflow", "serve", "dashboard"), "ui"),
    "version": "--version",
    "dry-run": "--dry-run",
    "dryrun": "--dry-run",
}
_START = {"run", "sweep", "start", "bench", "benchmark", "measure"}
_YES, _NO = {"true", "yes", "1"}, {"false", "no", "0"}
_NOTHING = {"none", "null", "off", "", "[none]", "[null]", "[off]", "false", "no"}
_WORD = re.compile(r"[\w.+-]*", re.ASCII)


def near(word: str, names: Iterable[str]) -> str:
    """``; did you mean NAME?`` for the name that is most like the word; empty if none is."""
    found = difflib.get_close_matches(word, list(names), n=1, cutoff=0.76)
    return f"; did you mean {found[0]}?" if found else ""


def check(options: Sequence[str], overrides: Sequence[str]) -> None:
    """Refuse the first word that can't be meant as it stands.

    Args:
        options: the words that begin with a dash, each followed by its value if it takes one.
        overrides: the other words.

    Raises:
        RunnerError: the message says what was meant, or what there is to choose from.
    """
    _check_options(options)
    for number, word in enumerate(overrides):
        before, after = overrides[number - 1] if number else "", "".join(overrides[number + 1 : number + 2])
        name, equals, value = word.partition("=")
        if not equals and not word.startswith("~"):
            _refuse_bare(word, before, after)
        elif equals and name != name.strip():
            raise RunnerError(f"{word}: a setting is written without blanks: {name.strip()}={value.strip()}")
        elif equals:
            _check_two_in_one(word, value)
            _check_value(name.lstrip("+"), value, after)


def _check_two_in_one(word: str, value: str) -> None:
    """Refuse two settings within one pair of quotes."""
    second = re.search(r"\s([\w.]+)=", value)
    if second and second[1].partition(".")[0] in _settings():
        raise RunnerError(f"'{word}': a pair of quotes holds one setting; write {word} without quotes")


def _check_options(options: Sequence[str]) -> None:
    """Refuse an option that there is not, and --cfg with what it can't have."""
    names = [word.partition("=")[0] for word in options]
    shows = [word for word in names if word in ("-c", "--cfg", "-i", "--info")]
    if shows and {"-m", "--multirun"} & set(names):
        raise RunnerError(
            f"{shows[0]}: it shows the configuration of one cell and takes no -m; leave -m out and name one value of "
            "each axis. The whole matrix, without running it: --dry-run"
        )
    is_value = False
    for number, word in enumerate(options):
        if is_value:
            is_value = False
            continue
        name, equals, _ = word.partition("=")
        following = "".join(options[number + 1 : number + 2])
        is_value = not equals and (name in WITH_VALUE or (name in ("-i", "--info") and following in INFO))
        if name in ("-c", "--cfg") and not equals and following not in _CFG:
            raise RunnerError(f"{name}: say what it is to show: --cfg job")
        if not _is_option(name):
            raise RunnerError(_unknown_option(name, word))


def _is_option(name: str) -> bool:
    if name.startswith("--"):
        return any(option.startswith(name) for option in OPTIONS)
    return name.startswith(_SHORT)


def _unknown_option(name: str, word: str) -> str:
    setting = name.strip("-").replace("-", "_")
    if setting in _settings():
        value = word.partition("=")[2] or "VALUE"
        return f"{name}: a setting is written without dashes: {setting}={value}"
    meant = f"; did you mean {_MEANT_OPTION[name]}?" if name in _MEANT_OPTION else near(name, OPTIONS)
    return f"{name}: there is no such option{meant or '; see python -m runner --help'}"


def _settings() -> list[str]:
    """Every name that may stand before an equals sign, without those of the parts of an axis."""
    return [*dict.fromkeys(key.partition(".")[0] for key in ENTRIES), "capture", choices.GROUP, "rounds"]


def _refuse_bare(word: str, before: str, after: str) -> None:
    """Refuse a word that is neither an option nor name=value."""
    name, equals, value = before.partition("=")
    if equals and value and _is_value(name.lstrip("+"), word):
        raise RunnerError(f"{before} {word}: write several values with a comma and no blank: {_joined(before, word)}")
    if word in _settings():
        value = after.removeprefix("=")
        example = f"{word}={'...' if not value or '=' in value else value}"
        raise RunnerError(f"{word}: a setting is written name=value, without blanks: {example}")
    if word in COMMANDS:
        raise RunnerError(f"{word}: a command is the first word: python -m runner {word}")
    if word in _START:
        raise RunnerError(f"{word}: a sweep needs no command: python -m runner -m allocator=ptmalloc,jemalloc")
    meant = f"; did you mean {_MEANT_COMMAND[word]}?" if word in _MEANT_COMMAND else near(word.lower(), COMMANDS)
    commands = f". The commands are {', '.join(COMMANDS)}" if not meant else ""
    raise RunnerError(f"{word}: there is no such command, and a setting is written name=value{meant}{commands}")


def _joined(before: str, word: str) -> str:
    return f"{before.rstrip(',')},{word.lstrip(',')}"


def _is_value(name: str, word: str) -> bool:
    """Whether a word may be a further value of that axis or setting."""
    files = _values(name)
    declared = ENTRIES[name].declaration.choices if name in ENTRIES else ()
    values = set(word.strip(",").split(","))
    return bool(values & {*files, *declared}) or (name in ENTRIES and word.strip(",").isdigit())


def _values(name: str) -> list[str]:
    """The values of an axis that are files; empty for any other name."""
    if name not in ("capture", choices.GROUP) and not (name in ENTRIES and ENTRIES[name].declaration.is_group):
        return []
    return list(choices.files_of(name, installation.search_path()))


def _check_value(name: str, value: str, after: str) -> None:
    """Refuse a value of an axis that stands for another, such as true, none or all."""
    files = _values(name)
    if not files:
        return
    if name == "capture":
        _check_capture(value, files)
        return
    if value.endswith(",") and after and "=" not in after:
        _refuse_bare(after, f"{name}={value}", "")
    for word in value.split(","):
        lower = word.lower()
        if word in files or not _WORD.fullmatch(word):
            continue
        if lower == "all":
            raise RunnerError(f"{name}={value}: name the values, with commas: {name}={','.join(files)}")
        if lower in (_YES | _NO | {"null", "none"}) or lower.isdigit():
            meant = "on" if lower in _YES else "off" if lower in _NO else ""
            hint = f"; did you mean {name}={meant}?" if meant in files else ""
            raise RunnerError(f"{name}={value}: choose {_or(files)}{hint}")


def _check_capture(value: str, files: Sequence[str]) -> None:
    every = f"capture=[{','.join(files)}]"
    if value.lower() in _NOTHING:
        raise RunnerError(f"capture={value}: for no captures: capture=[]")
    if value.lower() in ("all", "[all]", "true", "on"):
        raise RunnerError(f"capture={value}: name the captures: {every}")
    words = value.split(",")
    if len(words) > 1 and all(word in files for word in words):
        raise RunnerError(f"capture={value}: the captures of a sweep are a list in brackets: capture=[{value}]")


def _or(names: Sequence[str]) -> str:
    return " or ".join(names) if len(names) < 3 else f"one of {', '.join(names)}"
