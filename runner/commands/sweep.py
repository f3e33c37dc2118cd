"""The sweep: what runs when no command is named. Hydra composes the command line and calls the matrix sweeper."""

from __future__ import annotations

import functools
import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from runner.config import experiments
from runner.machine import installation
from runner.machine.host import version_of
from runner.protocol.errors import RunnerError


@functools.cache
def sweep_id() -> str:
    """Name of this process's sweep: sorts by time, and two started in the same second differ."""
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def launcher_here() -> str:
    """What ``launcher=auto`` stands for: the IPEX launcher, or PyTorch's own where IPEX is not installed."""
    return "ipexrun" if version_of("intel-extension-for-pytorch") else "xeon"


def experiments_here() -> str:
    """The experiments that ``--help`` lists, as text for the template in conf/config.yaml."""
    own = installation.own_folders(os.environ.get(installation.OWN_FOLDERS, ""))
    # Hydra's template is one of string.Template.
    return experiments.listing([installation.CONF, *own, installation.EXPERIMENTS]).replace("$", "$$")


def main(words: Sequence[str]) -> int:
    """Run the sweep that these words of the command line describe; returns the exit status.

    Raises:
        RunnerError: the input was refused; nothing was launched or recorded.
    """
    sys.argv = [sys.argv[0], *for_hydra(words)]  # Hydra reads it itself
    sys.path.insert(0, str(installation.PLUGINS))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to refusal.explain() instead of being printed by Hydra

    import hydra
    from omegaconf import DictConfig, OmegaConf

    from runner.config import schema
    from runner.job.run import run_job
    from runner.results.outcome import Outcome
    from runner.sweep import run as the_sweep

    schema.register()
    for name, function in (("sweep_id", sweep_id), ("launcher", launcher_here), ("experiments", experiments_here)):
        OmegaConf.register_new_resolver(f"runner.{name}", function, replace=True)

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    @hydra.main(version_base="1.3", config_path=str(installation.CONF), config_name="config")
    def task(composed: DictConfig) -> Outcome:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise RunnerError("hydra.mode=RUN: jobs are run by the sweeper; leave hydra.mode as it is")
        return run_job(schema.typed(composed), OmegaConf.to_yaml(composed, resolve=True))

    task()
    return the_sweep.exit_status


def for_hydra(words: Sequence[str]) -> list[str]:
    """The words as Hydra takes them; folders of the user's own go into the environment instead.

    ``--config-dir`` is Hydra's option too, but Hydra would read what it finds there with YAML 1.1's booleans.
    """
    left, own = [], []
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            own.append(_folder(option, value if equals else next(rest, "")))
        elif option.lstrip("+~") == "hydra.searchpath":
            raise RunnerError(f"{word}: name a folder of your own with --config-dir DIR instead")
        else:
            left.append("wait=false" if word == "--no-wait" else word)
    # A folder experiments/ of the working directory needs no option; what one names goes before it.
    named = os.environ.get(installation.OWN_FOLDERS, "").split(os.pathsep)
    folders = installation.own_folders(os.pathsep.join([*own, *named, "experiments"]))
    os.environ[installation.OWN_FOLDERS] = os.pathsep.join(map(str, folders))
    return experiments.as_default(left)


def _folder(option: str, name: str) -> str:
    """A folder that an option names, as an absolute path.

    Raises:
        RunnerError: it is not there, or can't be one of several in an environment variable.
    """
    folder = Path(name).absolute()
    if not name or not folder.is_dir():
        raise RunnerError(f"{option} {name}: there is no such folder; name one with experiment/NAME.yaml in it")
    if os.pathsep in str(folder):
        raise RunnerError(f"{option} {name}: {os.pathsep!r} in its path would be misread; choose another folder")
    return str(folder)
