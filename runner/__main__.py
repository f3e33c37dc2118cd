"""``python -m runner``: compose, plan, run, report.

With Hydra's arguments this is a sweep (of one cell when nothing is varied); with a command's name as
the first argument it is that command.
"""

from __future__ import annotations

import functools
import importlib
import os
import secrets
import sys
import time
from pathlib import Path

from runner.commands import refusal
from runner.config import names
from runner.machine.installation import CONF, EXPERIMENTS
from runner.protocol.errors import RunnerError, StorageError

# What the user types -> module with main().
COMMANDS = {"compare": "compare", "doctor": "doctor", "explain": "explain", "import": "import_", "ui": "ui"}


@functools.cache
def sweep_id() -> str:
    """Name of this process's sweep: sorts by time, and two started in the same second differ."""
    return time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)


def sweep() -> int:
    """Hand the command line to Hydra, which composes it and calls the matrix sweeper."""
    sys.path.insert(0, str(Path(__file__).with_name("plugins")))
    # Experiments of the folder one works in, else the project's own.
    os.environ.setdefault("RUNNER_EXPERIMENTS", "experiments" if Path("experiments").is_dir() else str(EXPERIMENTS))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to refusal.explain() instead of being printed by Hydra

    import hydra
    from omegaconf import DictConfig, OmegaConf

    from runner.config import schema
    from runner.job.run import run_job
    from runner.results.outcome import Outcome
    from runner.sweep import run as the_sweep

    schema.register()
    OmegaConf.register_new_resolver("runner.sweep_id", sweep_id, replace=True)

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def task(composed: DictConfig) -> Outcome:
        if HydraConfig.get().mode != RunMode.MULTIRUN:
            raise RunnerError("hydra.mode=RUN: jobs are run by the sweeper; leave hydra.mode as it is")
        return run_job(schema.typed(composed), OmegaConf.to_yaml(composed, resolve=True))

    task()
    return the_sweep.exit_status


def main() -> int:
    """Exit status: 0 all ran, 1 some cell failed, 2 refused, 130 interrupted."""
    argv = sys.argv  # Hydra reads it itself
    try:
        names.check_words(argv[1:])
        if argv[1:] and argv[1] in COMMANDS:
            command = importlib.import_module(f"runner.commands.{COMMANDS[argv[1]]}")
            return int(command.main(argv[2:]))
        if argv[1:2] == ["resume"]:
            argv = [argv[0], *importlib.import_module("runner.commands.resume").command_line(argv[2:])]
            names.check_words(argv[1:])
        sys.argv = ["wait=false" if word == "--no-wait" else word for word in argv]
        return sweep()
    except KeyboardInterrupt:
        print("runner: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = str(error) if isinstance(error, RunnerError) else refusal.explain(error)
        if sentence is None:
            raise
        print(f"runner: {refusal.line(sentence)}", file=sys.stderr)
        return 1 if isinstance(error, StorageError) else 2


if __name__ == "__main__":
    sys.exit(main())
