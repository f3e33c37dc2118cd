"""Which options a cell behind a server needs, and which a cell without one can't have."""

from __future__ import annotations

from runner.config.captures import CaptureConf
from runner.protocol.cell import ENTRIES, Cell, Load, Scenario
from runner.protocol.declaration import Role
from runner.protocol.errors import RunnerError

# The server takes five ports from the first on.
_LAST_PORT = 65535 - 4
# stats.estimates gives no p99 for fewer.
_P99_SAMPLES = 200


def check(cell: Cell, port: int | None, captures: CaptureConf) -> None:
    """Refuse the first value that belongs to the other scenario, or that is missing in this one.

    Args:
        port: the first port of the server; None for free ones.

    Raises:
        RunnerError: the message names the option, its value and what is valid.
    """
    scenario = cell.scenario
    if not scenario.is_served:
        _check_inference(cell, port)
        return
    name = f"scenario={scenario.name}"
    for key, value in _requests(cell).items():
        if value is None:
            raise RunnerError(f"{key}=null: {name} needs it ({ENTRIES[key].declaration.unit})")
    if port is not None and not 1024 <= port <= _LAST_PORT:
        raise RunnerError(f"scenario.port={port}: choose 1024 to {_LAST_PORT}, or null for free ones")
    for key, entry in ENTRIES.items():
        value = entry.value(cell)
        if entry.declaration.is_measuring and value is not None:
            raise RunnerError(
                f"{key}={value:g}: it belongs to the timed loop, and {name} measures scenario.requests; leave it out"
            )
    if cell.cache != "warm":
        raise RunnerError(
            f"cache={cell.cache}: behind a server nothing can be done between two requests; use cache=warm, or "
            "scenario=inference"
        )
    has_vtune = captures.itt is not None and captures.itt.vtune
    if captures.toplev is not None or captures.inductor is not None or has_vtune:
        raise RunnerError(
            "capture with toplev, inductor or VTune: they launch the cell again with its timed loop, which "
            f"{name} does not have; choose among onednn, itt, profiler, counters"
        )
    _check_load(scenario, cell.load, name)


def _requests(cell: Cell) -> dict[str, float | None]:
    """Setting -> value, for the settings that only requests have."""
    return {
        key: entry.value(cell)
        for key, entry in ENTRIES.items()
        if entry.owner == "scenario" and entry.declaration.role is Role.SETTING
    }


def _check_inference(cell: Cell, port: int | None) -> None:
    for key, value in {**_requests(cell), "scenario.port": port}.items():
        if value is not None:
            raise RunnerError(f"{key}={value}: scenario=inference has no requests; choose scenario=torchserve")
    if cell.load.name is not None:
        raise RunnerError(
            f"load={cell.load.name}: scenario=inference has no requests; choose scenario=torchserve, or leave it out"
        )
    least_s, most_s = cell.min_time_s, cell.max_time_s
    for key, value in (("min_time_s", least_s), ("max_time_s", most_s)):
        if value is None:
            raise RunnerError(f"{key}=null: the timed loop of scenario=inference needs it in seconds")
    if least_s and most_s and most_s < least_s:
        raise RunnerError(f"max_time_s={most_s:g}: it must be at least min_time_s={least_s:g}; set both")


def _check_load(scenario: Scenario, load: Load, name: str) -> None:
    if load.name is None:
        raise RunnerError(f"load=none: {name} needs requests; choose load=ab or load=h2load")
    rate, limit = load.rate_per_s, load.p99_limit_ms
    if load.name == "ab":
        if rate is not None or limit is not None:
            raise RunnerError(
                "load.rate_per_s and load.p99_limit_ms: ab sends the next request when one is answered, so it has no "
                "rate; choose load=h2load"
            )
        if (scenario.requests or 0) < (scenario.concurrency or 0):
            raise RunnerError(
                f"scenario.requests={scenario.requests}: ab needs at least scenario.concurrency="
                f"{scenario.concurrency} of them; raise it"
            )
        return
    if (rate is None) == (limit is None):
        raise RunnerError(
            "load=h2load: it needs a rate; give either load.rate_per_s=20 (a fixed rate) or load.p99_limit_ms=500 (the "
            "highest rate whose p99 stays below it)"
        )
    if limit is not None and (scenario.requests or 0) < _P99_SAMPLES:
        raise RunnerError(
            f"scenario.requests={scenario.requests}: a p99 needs at least {_P99_SAMPLES} requests; raise it"
        )
