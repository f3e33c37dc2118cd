"""Sweeps as jobs of a running Ray cluster, by the REST interface of its job server: no Ray is needed here.

Source: Ray Jobs REST API (https://docs.ray.io/en/latest/cluster/running-applications/job-submission/rest.html).
"""

from __future__ import annotations

import json
import os
import shlex
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.fleet.fleetfile import Fleet, Placed
from runner.protocol import stored
from runner.protocol.errors import RunnerError

_TIMEOUT_S = 30
_MOST_BYTES = 1 << 20
_STATES = {"RUNNING": "running", "PENDING": "waiting (for its resources)"}


def submit(fleet: Fleet, placed: Placed) -> str:
    """See runner.fleet.engines.Engine.submit()."""
    # Ray takes a line for a shell, and starts it in a folder of its own.
    line = f"cd {shlex.quote(fleet.directory)} && exec {shlex.join(placed.command)} >> {shlex.quote(placed.log)} 2>&1"
    job = f"runner-{placed.sweep_id}-{placed.submissions + 1}"
    order = {
        "entrypoint": line,
        "submission_id": job,
        # All of a node is one sweep's, if its resources say so: a CPU is what every node has.
        "entrypoint_num_cpus": 1,
        "entrypoint_resources": dict(placed.resources) or None,
    }
    return str(_ask(fleet, "POST", "", order)["submission_id"])


def states(fleet: Fleet, jobs: Sequence[str]) -> Mapping[str, str]:
    """See runner.fleet.engines.Engine.states()."""
    found = {job: str(_ask(fleet, "GET", job).get("status")) for job in jobs}
    return {job: _STATES[state] for job, state in found.items() if state in _STATES}


def cancel(fleet: Fleet, jobs: Sequence[str]) -> None:
    """See runner.fleet.engines.Engine.cancel()."""
    for job in jobs:
        _ask(fleet, "POST", f"{job}/stop")


def _ask(fleet: Fleet, method: str, path: str, order: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What the job server answers.

    Raises:
        RunnerError: it can't be reached, or refuses.
    """
    headers = {"Content-Type": "application/json"}
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    body = None if order is None else json.dumps(order).encode()
    address = f"{fleet.address.rstrip('/')}/api/jobs/{path}"
    request = urllib.request.Request(address, body, headers, method=method)  # noqa: S310 - checked by the command
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            text = answer.read(_MOST_BYTES).decode(errors="replace")
    except urllib.error.HTTPError as error:
        reason = " ".join(error.read().decode(errors="replace").split())[:300]
        hint = "; put the cluster's token into RAY_AUTH_TOKEN" if error.code in (401, 403) else ""
        raise RunnerError(f"address: {fleet.address}: Ray refuses ({error.code} {reason}){hint}") from error
    except OSError as error:
        raise RunnerError(f"address: {fleet.address}: no job server of Ray answers there ({error})") from error
    found = stored.parse_json(Path(address), text or "{}")
    return found if isinstance(found, dict) else {}
