"""Hydra's and OmegaConf's errors in one sentence that names the option, its value and the next step."""

from __future__ import annotations

import re
import shlex

from runner.commands.spelling import near as _near
from runner.config import names

_LONGEST = 3000


def line(text: str) -> str:
    """A sentence as one line without control characters: it may quote what is in a stored file."""
    return names.visible(text[:_LONGEST]).replace("\n", " ").replace("\t", " ")


def explain(error: Exception) -> str | None:
    """The sentence, or None when the error is not about the input (then it is a bug, and its traceback is needed)."""
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    from runner.protocol.errors import RunnerError

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for cause in chain:
        if isinstance(cause, RunnerError):
            return str(cause)
        if isinstance(cause, RecursionError):
            return "the configuration nests too deeply, or refers to itself; see python -m runner --cfg job"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; see that it can be read and written, or choose another"
    place = _raised_in(error)
    if isinstance(error, ValueError) and "/hydra/_internal/" in place:
        return (
            f"{' '.join(str(error).split())}: an axis takes the name of one of its values, "
            "as in ipex=off or defaults: [override /ipex: off]"
        )
    if not isinstance(error, (HydraException, OmegaConfBaseException)):
        problem = " ".join(str(error).split()) or type(error).__name__
        is_of_input = re.search(r"/(hydra|omegaconf|antlr4)/", place)
        return f"the command line or a configuration file can't be read: {problem[:500]}" if is_of_input else None
    for cause in chain:
        sentence = _translate(str(cause))
        if sentence is not None:
            return sentence
        if isinstance(cause, OverrideParseException):
            return _grammar_problem(cause.override, str(cause))
    return " ".join(str(error).split())


def _raised_in(error: Exception) -> str:
    """The file of the code that raised it: some bad input makes Hydra's own code raise whatever Python raises."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame.tb_frame.f_code.co_filename if frame is not None else ""


def _translate(text: str) -> str | None:
    """One known message of Hydra 1.3 or OmegaConf 2.3; None when it is another."""
    missing = re.search(r"Could not find '(?P<group>[^']+)/(?P<value>[^'/]*)'", text)
    if missing:
        options = re.findall(r"^\t(\S+)$", text, re.M)
        group, value = missing["group"], missing["value"]
        choices = f"; choose one of {', '.join(options)}" if options else ""
        own = (
            f"; others are named like torchvision:{value} or ./FILE.py:FUNCTION: docs/models.md"
            if group == "model"
            else ""
        )
        return f"{group}={value}: there is no such {group}{choices}{_near(value, options)}{own}"
    # Hydra names no options for a group that takes a list.
    one_of_list = re.search(r"Could not load '(?P<group>capture)/(?P<value>[^'/]*)'", text)
    if one_of_list:
        from dataclasses import fields

        from runner.config.captures import CaptureConf

        names = [field.name for field in fields(CaptureConf)]
        value = one_of_list["value"]
        return f"capture=[{value}]: there is no such capture; choose among {', '.join(names)}{_near(value, names)}"
    no_group = re.search(r"Could not override '(?P<key>[^']+)'", text)
    if no_group:
        key = no_group["key"]
        from dataclasses import fields

        from runner.config.schema import ONE_VALUE
        from runner.protocol.cell import ENTRIES

        names = [*dict.fromkeys(key.partition(".")[0] for key in ENTRIES), *ONE_VALUE]
        meant = "" if "." in key else _near(key, names)
        return (
            f"{key}: there is no such option{meant}; see python -m runner --cfg job "
            "(a new key of a mapping needs a + before it)"
        )
    wrong = re.search(
        r"(?P<what>(Value|Cannot convert|Invalid value|Unsupported interpolation|Key '[^']+' not in).*)",
        text.splitlines()[0],
    )
    key_line = re.search(r"full_key: (?P<key>\S+)", text)
    if wrong and key_line:
        return _no_number(key_line["key"], wrong["what"]) or f"{key_line['key']}: {wrong['what']}"
    several = re.search(r"Ambiguous value for argument '(?P<word>[^']+)'", text)
    if several:
        return f"{several['word']}: --cfg shows one cell; name one value, or show the whole matrix with --dry-run"
    mandatory = re.search(r"Missing mandatory value: (?P<key>\S+)", text)
    if mandatory:
        return f"{mandatory['key']}: it has no value; give it with {mandatory['key']}=..."
    return None


def _no_number(key: str, text: str) -> str | None:
    """The sentence about a value that is no number where one is needed; None about anything else."""
    from runner.config.schema import sweep_settings
    from runner.protocol.cell import ENTRIES

    declaration = ENTRIES[key].declaration if key in ENTRIES else sweep_settings().get(key)
    value = re.match(r"Value '(?P<value>[^']*)'.* could not be converted to (?P<kind>Integer|Float)", text)
    if value is None or declaration is None or not declaration.unit:
        return None
    whole = "a whole number" if value["kind"] == "Integer" else "a number"
    return f"{key}={value['value']}: it must be {whole} ({declaration.unit})"


# The characters that need no quotes in a value.
_SAFE = re.compile(r"[\w\s/\-+.$%*@?|:\\]", re.ASCII)


def _grammar_problem(word: str, text: str) -> str:
    """What is wrong in an argument that Hydra's grammar can't read, and how to write it.

    Args:
        word: the argument.
        text: Hydra's message about it.
    """
    key, _, value = word.partition("=")
    sentence = f"the command line can't be read: {word}: "
    odd = next((character for character in value if not _SAFE.match(character) and character != ","), None)
    if odd is None or odd in "[]{}()\"'":
        ends = "'<EOF>'" in text or "LexerNoViableAlt" in text
        sentence += "a bracket or a quote in it is not closed" if ends else "brackets and quotes are Hydra's syntax"
    else:
        sentence += f"{odd!r} in a value needs quotes"
    from runner.config import override_text

    quoted = f"{key}={','.join(map(override_text.as_word, value.split(',')))}"
    return f"{sentence}; if it is meant as text, write {shlex.quote(quoted)}"
