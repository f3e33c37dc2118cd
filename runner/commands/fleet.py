"""``python -m runner fleet``: one sweep per host, placed by Slurm, by Ray or on this machine; then the comparison."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from runner.commands import compare, pull
from runner.commands.options import add_mlruns, make_parser
from runner.commands.sweep import for_hydra, sweep_id
from runner.config import names
from runner.fleet import fleetfile, orders, progress
from runner.fleet.engines import engine_of
from runner.fleet.fleetfile import Fleet
from runner.fleet.progress import Progress
from runner.machine import execute
from runner.protocol.errors import RunnerError
from runner.report import terminal
from runner.results import outcome
from runner.results.command_lines import mlruns_option

_EPILOG = """fleet=NAME is a file fleet/NAME.yaml below experiments/ (or a folder of --config-dir) that names the engine
and the hosts; host=A,B chooses some of them; every other word is a sweep's. Each host measures the whole matrix by
itself, in a sweep of its own. Then the hosts are compared, with what a million samples costs on each. Ctrl-C leaves
everything running.

  python -m runner fleet -m fleet=cluster host=icelake,genoa experiment=allocator_settings
  python -m runner fleet status          how far the newest fleet is
  python -m runner fleet wait            watch it until its end, then compare its hosts
  python -m runner fleet cancel          stop its sweeps, as Ctrl-C stops one
  python -m runner fleet resume          submit those again that stopped before their end"""
_ACTIONS = ("status", "wait", "cancel", "resume")
# Between two looks at a fleet. Less would disturb what this machine measures for a fleet of its own.
_PAUSE_S = 5.0
_CHECK_S = 120


def main(arguments: list[str]) -> int:
    """Submit a fleet and watch it, or look after one that was submitted; exit status 1 if a sweep did not end well."""
    if not arguments or {"-h", "--help"} & set(arguments) or arguments[0] in _ACTIONS:
        options = _parser().parse_args(arguments or ["--help"])
        mlruns = Path(options.mlruns)
        return _look_after(options.action, fleetfile.find(options.fleet, mlruns), mlruns)
    fleet, mlruns = _planned(arguments)
    return _submit(fleet, mlruns, [placed.sweep_id for placed in fleet.sweeps])


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("fleet", _EPILOG)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("action", choices=_ACTIONS, help="look after a fleet that was submitted")
    parser.add_argument(
        "fleet", metavar="ID", nargs="?", help="which: its name or the beginning of it (default: the newest)"
    )
    add_mlruns(parser)
    return parser


def _planned(arguments: Sequence[str]) -> tuple[Fleet, Path]:
    """The fleet that the words describe, and the folder of results here; nothing is submitted.

    Raises:
        RunnerError: a word can't be understood.
    """
    own = {"fleet": "", "host": "", "mlruns": "mlruns", "tracking_uri": ""}
    words, rest = list[str](), list(arguments)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.partition("=")
        if key == "--mlruns" and not equals:
            value, equals = rest.pop(0) if rest else "", "="
        name = key.lstrip("+-")
        if equals and name in own:
            own[name] = value
        elif word not in ("-m", "--multirun"):
            words.append(word)
    # It also finds the folders of the user's own, in which the fleet's file may be.
    words = [word for word in for_hydra(["-m", *words]) if word != "-m"]
    if not own["fleet"]:
        raise RunnerError(
            "fleet: name the hosts with fleet=NAME, a file experiments/fleet/NAME.yaml; see docs/fleet.md"
        )
    if own["tracking_uri"]:
        names.check_address("tracking_uri", own["tracking_uri"])
    names.check_folder("mlruns", own["mlruns"])
    mlruns = Path(own["mlruns"])
    hosts = [host for host in own["host"].split(",") if host]
    conf = fleetfile.read_conf(own["fleet"])
    fleet = orders.plan(sweep_id(), conf, hosts, words, mlruns, own["tracking_uri"])
    _check_words(words)
    return fleet, mlruns


def _check_words(words: Sequence[str]) -> None:
    """Refuse now what every host would refuse later.

    Raises:
        RunnerError: the sweep's own sentence.
    """
    line = [sys.executable, "-m", "runner", "-m", *words, "host=here", "--dry-run"]
    checked = execute.run_short(line, timeout_s=_CHECK_S)
    said = next((line for line in checked.err.splitlines() if line.startswith("runner: ")), "").removeprefix("runner: ")
    # What this machine can't run, another may.
    if checked.status == 2 and said and not said.startswith("no cell of the matrix"):
        raise RunnerError(said)


def _submit(fleet: Fleet, mlruns: Path, which: Sequence[str]) -> int:
    fleet = orders.submit(fleet, mlruns, which)
    console = terminal.make_console()
    console.print(f"[bold]fleet {fleet.fleet_id}[/bold]: {terminal.plural(len(which), 'sweep')} by {fleet.engine}")
    for placed in fleet.sweeps:
        if placed.sweep_id in which:
            console.print(f"  {placed.host}: {fleet.engine} job {placed.job}  [dim]log {placed.log}[/dim]")
    return _wait(fleet, mlruns, console)


def _look_after(action: str, fleet: Fleet, mlruns: Path) -> int:
    console = terminal.make_console()
    if action == "wait":
        return _wait(fleet, mlruns, console)
    found = progress.of(fleet, mlruns)
    if action == "cancel":
        jobs = [one.placed.job for one in found if one.placed.job and not one.is_over]
        if jobs:
            engine_of(fleet.engine).cancel(fleet, jobs)
        console.print(f"{terminal.plural(len(jobs), 'sweep')} told to stop; to go on: {_line('resume', fleet, mlruns)}")
        return 0
    if action == "resume":
        stopped = progress.left(found)
        if not stopped:
            raise RunnerError(f"fleet resume {fleet.fleet_id}: no sweep of it stopped before its end")
        return _submit(fleet, mlruns, stopped)
    console.print(_table(fleet, found))
    return 0


def _line(action: str, fleet: Fleet, mlruns: Path) -> str:
    return f"python -m runner fleet {action} {fleet.fleet_id}{mlruns_option(mlruns)}"


def _wait(fleet: Fleet, mlruns: Path, console: Console) -> int:
    """Watch a fleet until its sweeps are over, then compare the hosts; the exit status is 1 if one did not end well."""
    try:
        found = _watch(fleet, mlruns, console)
    except KeyboardInterrupt:
        console.print("\nThe sweeps go on. To come back, or to stop them:")
        for action in ("wait", "status", "cancel"):
            console.print(f"  {_line(action, fleet, mlruns)}")
        return 130
    for one in found:
        if one.state == progress.STOPPED:
            console.print(f"[red]{one.placed.host} stopped[/red] before its end: {escape(one.detail)}")
    if progress.left(found):
        console.print(f"To go on: {_line('resume', fleet, mlruns)}")
    folders = [mlruns / "sweeps" / one.placed.sweep_id for one in found]
    ids = [folder.name for folder in folders if folder.is_dir() and outcome.has_results(folder)]
    if ids:
        console.print()
        compare.main([*ids, f"--mlruns={mlruns}"])
    return 0 if len(ids) == len(found) and all(one.state == progress.ENDED and not one.detail for one in found) else 1


def _watch(fleet: Fleet, mlruns: Path, console: Console) -> list[Progress]:
    """Show how far the sweeps are until all are over, and fetch those that are not here."""
    said: dict[str, str] = {}
    fetched: set[str] = set()
    with Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live:
        while True:
            try:
                found = _found(fleet, mlruns, fetched)
            except RunnerError as error:  # a scheduler that restarts, say: the sweeps go on meanwhile
                _say_once(console, said, "", f"{error}; asking again")
            else:
                said.pop("", None)
                if live is not None:
                    live.update(_table(fleet, found), refresh=True)
                else:
                    for one in found:
                        _say_once(console, said, one.placed.sweep_id, _line_of(one))
                if all(one.is_over for one in found):
                    return found
            time.sleep(_PAUSE_S)


def _found(fleet: Fleet, mlruns: Path, fetched: set[str]) -> list[Progress]:
    """The progress of each sweep, after fetching those whose jobs have left their engine and that are not here.

    Args:
        fetched: the ids of those that were fetched before, to which these are added.
    """
    while True:
        found = progress.of(fleet, mlruns)
        # Started again; or its scheduler did not name it for a moment, and the server had nothing of it yet.
        fetched.difference_update(one.placed.sweep_id for one in found if not one.is_over)
        away = [one.placed for one in found if one.state == progress.STOPPED and one.placed.job]
        new = [placed.sweep_id for placed in away if placed.sweep_id not in fetched]
        if fleet.is_shared or not new:
            return found
        # Looked at again afterwards: another may have ended while these were fetched.
        for ended in new:
            pull.fetch(ended, fleet.tracking_uri, mlruns)
            fetched.add(ended)


def _table(fleet: Fleet, found: Sequence[Progress]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in ("host", "sweep", "state", "jobs", ""):
        table.add_column(column, overflow="fold")
    for one in found:
        jobs = f"{one.jobs} of {max(one.planned, one.jobs)}" if one.planned else "-"
        table.add_row(
            one.placed.host,
            one.placed.sweep_id.removeprefix(f"{fleet.fleet_id}-"),
            one.state,
            jobs,
            escape(one.detail),
        )
    return table


def _line_of(one: Progress) -> str:
    """How far a sweep is, in one line."""
    jobs = f", {one.jobs} of {max(one.planned, one.jobs)} jobs" if one.planned else ""
    detail = f"; {one.detail}" if one.is_over and one.detail else ""
    return f"{one.placed.host}: {one.state}{jobs}{detail}"


def _say_once(console: Console, said: dict[str, str], what: str, line: str) -> None:
    """Print a line unless it is what was said last of the same thing."""
    if said.get(what) != line:
        said[what] = line
        console.print(f"[dim]{time.strftime('%H:%M:%S')}[/dim] {escape(line)}", highlight=False)
