"""``python -m runner pull SWEEP|FLEET``: the folders of sweeps that other hosts recorded in an MLflow server."""

from __future__ import annotations

import argparse
from pathlib import Path

from runner.commands.options import add_mlruns, make_parser
from runner.config import names
from runner.fleet import fleetfile
from runner.protocol.errors import RunnerError

_EPILOG = """Afterwards compare, explain, show, resume and import work as if the sweep had run here. What is here
already is replaced by what the server has."""


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("pull", _EPILOG)
    parser.add_argument(
        "names",
        metavar="SWEEP",
        nargs="+",
        help="fetch this sweep, or all sweeps of this fleet, or whose names begin so",
    )
    parser.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="the address of the MLflow server (default: the one that the fleet records in)",
    )
    add_mlruns(parser)
    return parser


def main(arguments: list[str]) -> int:
    """Fetch the sweeps; exit status 0.

    Raises:
        RunnerError: the server has no such sweep, or none is named.
    """
    options = _parser().parse_args(arguments)
    mlruns = Path(options.mlruns)
    for name in options.names:
        uri = options.tracking_uri or fleetfile.find(name, mlruns).tracking_uri
        if not uri:
            raise RunnerError(f"pull {name}: name the server with --tracking-uri http://...")
        names.check_address("--tracking-uri", uri)
        folders = fetch(name, uri, mlruns)
        if not folders:
            raise RunnerError(f"pull {name}: the server has no sweep whose name begins so")
        for folder in folders:
            print(f"{folder.name} is in {folder}", flush=True)
    return 0


def fetch(name: str, tracking_uri: str, mlruns: Path) -> list[Path]:
    """The folders of these sweeps, fetched from a server: see runner.tracking.pulling.pull()."""
    from runner.tracking import pulling

    return pulling.pull(name, tracking_uri, mlruns)
