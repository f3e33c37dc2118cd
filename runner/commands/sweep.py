"""The sweep: what runs when no command is named. Hydra composes the command line and calls the matrix sweeper."""

from __future__ import annotations

import functools
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.commands import spelling
from runner.config import choices, override_text
from runner.machine import installation
from runner.machine.host import version_of
from runner.protocol.cell import ENTRIES
from runner.protocol.errors import RunnerError


@functools.cache
def sweep_id() -> str:
    """The name of this process's sweep: names sort by time, and differ for sweeps started in the same second."""
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def launcher_here() -> str:
    """What ``launcher=auto`` stands for: the IPEX launcher, or PyTorch's own where IPEX is not installed."""
    return "ipexrun" if version_of("intel-extension-for-pytorch") else "xeon"


def experiments_help() -> str:
    """The experiments that ``--help`` lists, as text for the template in conf/config.yaml."""
    return choices.list_experiments(installation.search_path())


def axes_help() -> str:
    """The axes that ``--help`` lists, as text for the same template."""
    return choices.list_axes(ENTRIES, installation.search_path())


def main(words: Sequence[str]) -> int:
    """Run the sweep that these words of the command line describe; returns the exit status.

    Raises:
        RunnerError: the input was refused; nothing was launched or recorded.
    """
    sys.argv = [sys.argv[0], *for_hydra(words)]  # Hydra reads it itself
    sys.path.insert(0, str(installation.PLUGINS))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to refusal.explain() instead of being printed by Hydra

    if not {word.partition("=")[0] for word in sys.argv[1:]} & _QUIET:
        print("planning the sweep ...", flush=True)  # importing Hydra and looking at this machine take seconds

    import hydra
    from omegaconf import DictConfig, OmegaConf

    from runner.config import schema

    if TYPE_CHECKING:
        from runner.results.outcome import CaptureOutcome, Outcome

    schema.register()
    resolvers: dict[str, Callable[[], str]] = {
        "sweep_id": sweep_id,
        "launcher": launcher_here,
        "experiments_help": experiments_help,
        "axes_help": axes_help,
    }
    for name, function in resolvers.items():
        OmegaConf.register_new_resolver(f"runner.{name}", function, replace=True)
    if {"--help", "-h"} & set(words):
        # Hydra would compose the configuration first, and copy it a hundred times to list its groups.
        print(OmegaConf.load(installation.CONF / "config.yaml").hydra.help.template)
        return 0

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    def task(composed: DictConfig) -> Outcome | CaptureOutcome:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise RunnerError("hydra.mode=RUN: jobs are run by the sweeper; leave hydra.mode as it is")
        config, resolved_yaml = schema.typed(composed), OmegaConf.to_yaml(composed, resolve=True)
        if config.sweep.captures:
            from runner.job.captures import take_captures

            return take_captures(config, resolved_yaml)
        from runner.job.run import run_job

        return run_job(config, resolved_yaml)

    # The sweeper leaves it here: Hydra hands it this function, and drops what a sweeper returns.
    task.exit_status = 0  # type: ignore[attr-defined]
    hydra.main(version_base="1.3", config_path=str(installation.CONF), config_name="config")(task)()
    return int(task.exit_status)  # type: ignore[attr-defined]


# Who asks for these wants their answer alone.
_QUIET = {"-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion", "dry_run"}
# Words of the command line that stand for a setting.
_SPELLINGS = {"--no-wait": "wait=false", "--wide": "wide=true"}
_AXES_AND_VALUES = re.compile(r"\w+=[\w.+-]+(,\w+=[\w.+-]+)*", re.ASCII)


def for_hydra(words: Sequence[str]) -> list[str]:
    """The words as Hydra takes them; folders of the user's own go into the environment instead.

    ``--config-dir`` is Hydra's option too, but Hydra would read what it finds there with YAML 1.1's booleans.
    """
    remaining, own = [], []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            own.append(_folder(option, value if equals else rest.pop(0) if rest else ""))
        elif option.lstrip("+~") == "hydra.searchpath":
            raise RunnerError(f"{word}: name a folder of your own with --config-dir DIR instead")
        elif word.startswith("~") and option[1:] in ENTRIES:
            raise RunnerError(
                f"{word}: it always has a value; leave this out for its default, or choose {option[1:]}=..."
            )
        elif option == "--dry-run":
            number = value if equals else rest.pop(0) if rest and rest[0].isdigit() else "true"
            if not number.isdigit() and number != "true":
                raise RunnerError(f"{word}: it takes the number of a cell, as in --dry-run=1, or nothing")
            remaining.append(f"dry_run={number}")
        elif option == "--mlruns":
            remaining.append(f"mlruns={override_text.as_word(value if equals else rest.pop(0) if rest else '')}")
        elif option.lstrip("+") == "baseline" and _AXES_AND_VALUES.fullmatch(value):
            remaining.append(f"{option}={{{value.replace('=', ': ')}}}")  # as compare --baseline spells it
        else:
            remaining.append(_SPELLINGS.get(word, word))
    # A folder experiments/ in the working directory needs no option; folders that an option names go before it.
    named = os.environ.get(installation.OWN_FOLDERS, "").split(os.pathsep)
    folders = installation.own_folders(os.pathsep.join([*own, *named, "experiments"]))
    os.environ[installation.OWN_FOLDERS] = os.pathsep.join(map(str, folders))
    return _options_first(choices.as_hydra_wants(remaining))


def _options_first(words: Sequence[str]) -> list[str]:
    """The same words with the options before the overrides: argparse takes no override after an option that follows
    one, and says of ``model=tiny -m ipex=off,on`` that there is no such argument.

    Raises:
        RunnerError: a word can't be meant as it stands.
    """
    options, overrides = list[str](), list[str]()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        (options if word.startswith("-") else overrides).append(word)
        has_value = word in spelling.WITH_VALUE or (word in ("-i", "--info") and rest[:1] and rest[0] in spelling.INFO)
        if rest and has_value:
            options.append(rest.pop(0))
    spelling.check(options, overrides)
    return [*options, *overrides]


def _folder(option: str, name: str) -> str:
    """A folder that an option names, as an absolute path.

    Raises:
        RunnerError: there is no such folder, or its path can't be one of several in an environment variable.
    """
    folder = Path(name).absolute()
    if not name or not folder.is_dir():
        raise RunnerError(f"{option} {name}: there is no such folder; name one with experiment/NAME.yaml in it")
    if os.pathsep in str(folder):
        raise RunnerError(f"{option} {name}: {os.pathsep!r} in its path would be misread; choose another folder")
    return str(folder)
