"""From the words of a command line to a fleet: which sweep runs on which host, by which line; and its submission."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from runner.config import override_text
from runner.fleet.engines import engine_of
from runner.fleet.fleetfile import Fleet, FleetConf, HostConf, Placed, folder_of, write
from runner.machine.installation import search_options
from runner.protocol.errors import RunnerError

# What a fleet fills in for each of its sweeps.
_OWN = ("host", "usd_per_hour", "resume", "hydra.sweep.dir", "mlruns", "tracking_uri", "dry_run", "fleet")


def plan(
    fleet_id: str,
    conf: FleetConf,
    hosts: Sequence[str],
    words: Sequence[str],
    mlruns: Path,
    tracking_uri: str,
) -> Fleet:
    """One sweep per machine of these hosts, none of them submitted yet.

    Args:
        hosts: the names that were asked for; all of the fleet's if there is none.
        words: the command line of a sweep, without what the fleet fills in.
        mlruns: the folder of results here.
        tracking_uri: the MLflow server to record in; empty for the database in the folder of results.

    Raises:
        RunnerError: a host or the engine is unknown, or a word is the fleet's own, or results could not come home.
    """
    for word in words:
        key = word.partition("=")[0].lstrip("+~")
        if key in _OWN:
            raise RunnerError(f"{word}: a fleet fills in {key} for each of its sweeps; leave it out")
    unknown = [host for host in hosts if host not in conf.hosts]
    if unknown:
        raise RunnerError(
            f"host={','.join(hosts)}: {unknown[0]!r} is no host of it; choose among {', '.join(conf.hosts)}"
        )
    engine_of(conf.engine)
    if conf.engine == "ray" and not conf.address.startswith(("http://", "https://")):
        raise RunnerError(
            "address: name the job server of the Ray cluster in the fleet's file, as in http://127.0.0.1:8265"
        )
    if conf.mlruns and not tracking_uri:
        raise RunnerError(
            f"mlruns: {conf.mlruns}: hosts with a folder of results of their own send them by an MLflow server; add "
            "tracking_uri=http://..."
        )
    results = conf.mlruns or str(mlruns.resolve())
    folder = folder_of(mlruns, fleet_id).resolve()
    sweeps = [
        _placed(fleet_id, name, conf.hosts[name], number, words, results, tracking_uri, folder)
        for name in (hosts or conf.hosts)
        for number in range(1, conf.hosts[name].machines + 1)
    ]
    directory = conf.directory or str(Path.cwd())
    return Fleet(fleet_id, conf.engine, conf.address, directory, tracking_uri, not conf.mlruns, sweeps)


def _placed(
    fleet_id: str,
    name: str,
    host: HostConf,
    number: int,
    words: Sequence[str],
    results: str,
    tracking_uri: str,
    folder: Path,
) -> Placed:
    sweep_id = f"{fleet_id}-{name}" + (f"-{number}" if host.machines > 1 else "")
    price = [] if host.usd_per_hour is None else [f"usd_per_hour={host.usd_per_hour!r}"]
    server = [f"tracking_uri={override_text.as_word(tracking_uri)}"] if tracking_uri else []
    command = [
        host.python or sys.executable, "-u", "-m", "runner", *search_options(), "-m", *words, f"host={name}", *price,
        *server, f"mlruns={override_text.as_word(results)}", "resume=true",
        f"hydra.sweep.dir={override_text.as_word(f'{results}/sweeps/{sweep_id}')}",
    ]  # fmt: skip
    log = str(folder / f"{sweep_id}.log")
    return Placed(name, number, sweep_id, command, list(host.sbatch), dict(host.ray), log)


def submit(fleet: Fleet, mlruns: Path, which: Sequence[str]) -> Fleet:
    """Submit these sweeps of a fleet, and leave its record after each, so that none is forgotten.

    Args:
        which: their ids.

    Raises:
        RunnerError: the engine refused one, or can't be reached; those before it are submitted.
    """
    engine = engine_of(fleet.engine)
    write(fleet, mlruns)
    for placed in fleet.sweeps:
        if placed.sweep_id in which:
            job = engine.submit(fleet, placed)
            submitted = replace(placed, job=job, submissions=placed.submissions + 1)
            sweeps = [submitted if other.sweep_id == placed.sweep_id else other for other in fleet.sweeps]
            fleet = replace(fleet, sweeps=sweeps)
            write(fleet, mlruns)
    return fleet


def jobs_of(fleet: Fleet) -> Mapping[str, Placed]:
    """The engine's name -> sweep, of those that were submitted."""
    return {placed.job: placed for placed in fleet.sweeps if placed.job}
