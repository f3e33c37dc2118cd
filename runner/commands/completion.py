"""``runner completion bash|zsh``: what the Tab key offers, made from conf/ and the declarations of every setting.

The shell asks on every press of the key, so nothing but the standard library is imported here.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path

from runner import commands
from runner.commands.spelling import OPTIONS
from runner.config import choices
from runner.config.sweep_options import AUTO, RACE, SweepOptions
from runner.machine import installation
from runner.protocol.cell import ENTRIES

# Each asks for the words that could end the line up to the cursor. Bash replaces only what follows the last character
# of COMP_WORDBREAKS, to which = belongs unless the user has taken it out.
_SCRIPTS = {
    "bash": """\
_runner_complete() {
    local IFS=$'\\n' style=bash
    [[ $COMP_WORDBREAKS == *=* ]] || style=zsh
    COMPREPLY=($("$1" completion $style --line "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    return 0
}
complete -o default -F _runner_complete runner
""",
    "zsh": """\
#compdef runner
_runner() {
    local -a found
    found=("${(@f)$($words[1] completion zsh --line "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
    found=(${found:#})
    if (( ! $#found )); then _files; return; fi
    compadd -S '' -- ${(M)found:#*=}
    compadd -- ${found:#*=}
}
compdef _runner runner
""",
}
_EPILOG = """The script completes the words of the installed command `runner`: commands, axes, values, options and
sweeps. For this shell: eval "$(runner completion bash)", or zsh. For every shell that you open: put that line into
~/.bashrc, or into ~/.zshrc."""


def main(arguments: list[str]) -> int:
    """Print the script, or the words that could end a line; exit status 0."""
    # runner.commands.options imports more than a press of a key should wait for.
    summary = commands.COMMANDS["completion"].summary
    parser = argparse.ArgumentParser(prog="runner completion", description=summary, epilog=_EPILOG)
    parser.add_argument("shell", choices=tuple(_SCRIPTS), help="for this shell")
    parser.add_argument("--line", metavar="TEXT", help="print the words that could end this line instead, one per line")
    options = parser.parse_args(arguments)
    if options.line is None:
        print(_SCRIPTS[options.shell], end="")
        return 0
    *before, current = _words(options.line)
    found = candidates(before[1:], current)
    # After = and : bash replaces only what follows.
    cut = max(current.rfind("="), current.rfind(":")) + 1 if options.shell == "bash" else 0
    print("\n".join(word[cut:] for word in found))
    return 0


def _words(line: str) -> list[str]:
    """The words of a line, the last one being what the cursor stands behind; within quotes nothing is offered."""
    ends = "" if line[-1:].strip() else "x"
    try:
        words = shlex.split(line + ends)
    except ValueError:
        return [*line.split(), '"']
    return [*words[:-1], words[-1][: len(words[-1]) - len(ends)]]


def candidates(before: Sequence[str], current: str) -> list[str]:
    """The words that may stand where ``current`` stands, and begin with it.

    Args:
        before: the words before it, without the name of the program.
    """
    command = commands.COMMANDS.get(before[0]) if before else None
    found = _of_command(command, before, current) if command else _of_sweep(before, current)
    if not before:
        found = [*commands.COMMANDS, *found]
    return [word for word in dict.fromkeys(found) if word.startswith(current)]


def _of_command(command: commands.Command, before: Sequence[str], current: str) -> list[str]:
    """The words that may follow a command."""
    option, equals, _ = current.partition("=")
    if equals and option.startswith("--"):
        return [f"{option}={value}" for value in _option_values(option, command, before)]
    if before[-1].startswith("--"):
        values = _option_values(before[-1], command, before)
        if values or before[-1] in _WITH_NAMES:
            return values
    if current.startswith("-"):
        return ["--help", *command.options]
    return _arguments(command, before, current)


# Options whose value is a folder, a number or an address: the shell's own completion helps more.
_WITH_NAMES = ("--mlruns", "--top", "--port", "--best-under", "--tracking-uri")


def _option_values(option: str, command: commands.Command, before: Sequence[str]) -> list[str]:
    if option == "--format":
        return ["text", "md", "json", *(["csv"] if command.module == "compare" else [])]
    if option == "--sweep":
        return _sweeps(before)
    if option == "--allow":
        return ["host", "versions", "settings"]
    if option == "--by":
        return _axes()
    if option == "--baseline":
        return [f"{axis}={value}" for axis in _axes() for value in _values(axis)]
    return []


def _arguments(command: commands.Command, before: Sequence[str], current: str) -> list[str]:
    """The words that stand for what a command is about."""
    found: list[str] = []
    for kind in command.takes:
        if kind == "sweep":
            found += _sweeps(before)
        elif kind == "cell":
            found += ["baseline", "fastest", "slowest", *_settings(_axes(), current)]
        elif kind == "setting":
            found += _of_sweep(before[1:], current)
        else:
            found.append(kind)
    return found


def _of_sweep(before: Sequence[str], current: str) -> list[str]:
    """The words that may stand in a sweep: options, settings, and the values of what stands before ``=``."""
    if before[-1:] in (["--cfg"], ["-c"]):
        return ["job", "hydra", "all"]
    if before[-1:] and before[-1] in ("--config-dir", "-cd", "--mlruns"):
        return []
    if current.startswith("-"):
        return ["-m", *OPTIONS]
    return _settings([*_names(), *_options_of_sweep(), "capture", choices.GROUP], current)


def _settings(names: Iterable[str], current: str) -> list[str]:
    """``name=`` for each name, or ``name=value`` for each value once there is a name."""
    name, equals, value = current.partition("=")
    if not equals:
        return [f"{each}=" for each in names]
    chosen, comma, _ = value.rpartition(",")
    taken = set(chosen.split(","))
    return [f"{name}={chosen}{comma}{each}" for each in _values(name.lstrip("+")) if each not in taken]


def _names() -> list[str]:
    """The axes and settings that belong to no value of another."""
    return [key for key in ENTRIES if "." not in key]


def _axes() -> list[str]:
    return [key for key in _names() if ENTRIES[key].declaration.role.value == "axis"]


def _options_of_sweep() -> list[str]:
    return [field.name for field in dataclasses.fields(SweepOptions)]


def _values(name: str) -> list[str]:
    """The values that can be listed: files, the choices that are declared, true and false."""
    entry = ENTRIES.get(name)
    if name in ("capture", choices.GROUP) or (entry and entry.declaration.is_group):
        files = list(choices.files_of(name, installation.search_path()))
        return ["[]", *(f"[{file}]" for file in files), f"[{','.join(files)}]"] if name == "capture" else files
    if name == "rounds":
        return [AUTO, RACE, *"1358"]
    if entry and entry.declaration.choices:
        return list(entry.declaration.choices)
    hint = entry.hint if entry else typing.get_type_hints(SweepOptions).get(name)
    return ["true", "false"] if bool in (hint, *typing.get_args(hint)) else []


def _sweeps(before: Sequence[str]) -> list[str]:
    """The names of the sweeps in the folder of results that the words name, the newest first."""
    folder = "mlruns"
    for number, word in enumerate(before):
        option, equals, value = word.partition("=")
        if option in ("--mlruns", "mlruns"):
            folder = value if equals else "".join(before[number + 1 : number + 2])
    try:
        return sorted((path.name for path in (Path(folder) / "sweeps").iterdir() if path.is_dir()), reverse=True)
    except OSError:
        return []
