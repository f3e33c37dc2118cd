"""``python -m runner torch``: the environments of the managed torch builds: make, list and remove them."""

from __future__ import annotations

import argparse

from rich import box
from rich.table import Table

from runner.commands.options import make_parser
from runner.machine import torch_environments
from runner.machine.torch_builds import build_of
from runner.machine.torch_environments import Environment
from runner.protocol.cell import Torch
from runner.protocol.errors import RunnerError
from runner.report import terminal


def _parser() -> argparse.ArgumentParser:
    more = f"Sweeps make what they need by themselves. {torch_environments.CACHE} names another folder for all of them."
    parser = make_parser("torch", more)
    parser.add_argument(
        "action", choices=("add", "list", "remove"), help="make the environment of a build; show all; remove one"
    )
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="the build, as in torch=NAME; remove without one removes what no build uses any more",
    )
    parser.add_argument("--again", action="store_true", help="for add: make it anew where it is there")
    return parser


def main(arguments: list[str]) -> int:
    """Do what the first word says; exit status 0."""
    options = _parser().parse_args(arguments)
    if options.action == "add":
        environment = _environment(options.name)
        torch_environments.make(environment, _say, options.again)
        build = build_of(Torch(options.name))
        _say(f"torch={options.name}: torch {build.torch}, {build.python}")
    elif options.action == "remove":
        _remove(options.name)
    else:
        _list()
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _environment(name: str | None) -> Environment:
    """The environment of a build.

    Raises:
        RunnerError: there is no such build.
    """
    known = torch_environments.environments()
    if name is None or name not in known:
        problem = "there is no such managed build; choose" if name else "name"
        raise RunnerError(f"torch add {name or ''}: {problem} one of {', '.join(known) or 'none'}")
    return known[name]


def _remove(name: str | None) -> None:
    folders = torch_environments.leftovers() if name is None else [_environment(name).folder]
    removed = [folder for folder in folders if folder.exists()]
    for folder in removed:
        torch_environments.remove(folder)
        _say(f"removed {folder}")
    if not removed:
        _say("nothing to remove")


def _list() -> None:
    console = terminal.make_console()
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in ("torch", "state", "size", "environment"):
        table.add_column(column, overflow="fold")
    for environment in torch_environments.environments().values():
        state = "made" if environment.is_complete else "made when it is needed"
        table.add_row(environment.name, state, _size(environment), str(environment.folder))
    for folder in torch_environments.leftovers():
        table.add_row("-", "no build uses it", "", str(folder))
    terminal.print_folded(console, table)


def _size(environment: Environment) -> str:
    return f"{environment.size_bytes / 1e9:.1f} GB" if environment.is_complete else ""
