"""The settings in conf/scenario/*.yaml and conf/load/*.yaml, and their checks. Mutable, for Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from runner.config.captures import CaptureConf
from runner.matrix.cell import Load, Scenario
from runner.protocol.errors import RunnerError


class ScenarioName(Enum):
    """Who calls the model: the worker itself, or a server."""

    inference = "inference"
    torchserve = "torchserve"


class LoadName(Enum):
    """The load generator that sends the requests."""

    none = "none"
    ab = "ab"
    h2load = "h2load"


@dataclass
class ScenarioConf:
    """The settings of conf/scenario; all but the name are null in inference, which has no requests."""

    name: ScenarioName = ScenarioName.inference
    requests: int | None = None
    concurrency: int | None = None
    max_batch_delay_ms: int | None = None
    # the first of the server's own ports; null: free ones
    port: int | None = None


@dataclass
class LoadConf:
    """The settings of conf/load."""

    name: LoadName = LoadName.none
    rate_per_s: float | None = None
    # instead of a fixed rate, search for the highest rate whose p99 stays under this many ms
    p99_limit_ms: float | None = None


def scenario_of(conf: ScenarioConf) -> Scenario:
    """The frozen scenario of a cell, without the port, which changes no result."""
    return Scenario(conf.name.value, conf.requests, conf.concurrency, conf.max_batch_delay_ms)


def load_of(conf: LoadConf) -> Load:
    """The frozen load of a cell."""
    return Load(None if conf.name is LoadName.none else conf.name.value, conf.rate_per_s, conf.p99_limit_ms)


# setting of the scenario -> (smallest value, what it counts)
_AT_LEAST = {
    "requests": (1, "requests of the measured load"),
    "concurrency": (1, "clients"),
    "max_batch_delay_ms": (0, "milliseconds that a batch waits to fill"),
}
# The largest number of requests, clients and milliseconds.
_MOST = 10**6
# The server takes five consecutive ports.
_LAST_PORT = 65535 - 4
# h2load schedules requests in whole milliseconds.
MOST_PER_S = 1000.0
# stats.estimates gives no p99 for fewer samples.
_P99_SAMPLES = 200


def check(scenario: ScenarioConf, load: LoadConf, loop: Mapping[str, float | None], captures: CaptureConf) -> None:
    """Refuse settings that are out of range or belong to the other scenario.

    Args:
        loop: the settings of the timed loop, which does not exist behind a server.

    Raises:
        RunnerError: the message names the first such setting, its value and what to do.
    """
    if scenario.name is ScenarioName.inference:
        _check_inference(scenario, load, loop)
        return
    name = f"scenario={scenario.name.value}"
    for setting, (least, meaning) in _AT_LEAST.items():
        value = getattr(scenario, setting)
        if value is None or not least <= value <= _MOST:
            raise RunnerError(
                f"scenario.{setting}={value}: it is the number of {meaning} and must be {least} to {_MOST}"
            )
    if scenario.port is not None and not 1024 <= scenario.port <= _LAST_PORT:
        raise RunnerError(f"scenario.port={scenario.port}: choose 1024 to {_LAST_PORT}, or null for free ones")
    for setting, value in loop.items():
        if value is not None:
            raise RunnerError(
                f"{setting}={value:g}: it is a setting of the timed loop, and {name} measures scenario.requests; "
                "leave it out"
            )
    if captures.toplev is not None or (captures.itt is not None and captures.itt.vtune):
        raise RunnerError(
            f"capture with toplev or VTune: they launch the cell again with a timed loop, which {name} does not have; "
            "choose among onednn, itt, profiler, counters"
        )
    _check_load(scenario, load, name)


def _check_inference(scenario: ScenarioConf, load: LoadConf, loop: Mapping[str, float | None]) -> None:
    for setting in (*_AT_LEAST, "port"):
        if getattr(scenario, setting) is not None:
            raise RunnerError(
                f"scenario.{setting}={getattr(scenario, setting)}: scenario=inference has no requests; choose "
                "scenario=torchserve"
            )
    if load.name is not LoadName.none:
        raise RunnerError(
            f"load={load.name.value}: scenario=inference has no requests; choose scenario=torchserve, or leave it out"
        )
    least_s, most_s = loop["min_time_s"], loop["max_time_s"]
    for setting, value in (("min_time_s", least_s), ("max_time_s", most_s)):
        if value is None:
            raise RunnerError(
                f"{setting}=null: the timed loop of scenario=inference needs it; give a number of seconds"
            )
    if least_s and most_s and most_s < least_s:
        raise RunnerError(f"max_time_s={most_s:g}: it must be at least min_time_s={least_s:g}; set both")


def _check_load(scenario: ScenarioConf, load: LoadConf, name: str) -> None:
    if load.name is LoadName.none:
        raise RunnerError(f"load=none: {name} needs requests; choose load=ab or load=h2load")
    rate, limit = load.rate_per_s, load.p99_limit_ms
    if load.name is LoadName.ab:
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
            "highest rate whose p99 stays under it)"
        )
    if rate is not None and not 0 < rate <= MOST_PER_S:
        raise RunnerError(
            f"load.rate_per_s={rate:g}: it is in requests per second and must be above 0 and at most {MOST_PER_S:g}"
        )
    if limit is not None and not 0 < limit <= _MOST:
        raise RunnerError(f"load.p99_limit_ms={limit:g}: it is in milliseconds and must be above 0 and at most {_MOST}")
    if limit is not None and (scenario.requests or 0) < _P99_SAMPLES:
        raise RunnerError(
            f"scenario.requests={scenario.requests}: a p99 needs at least {_P99_SAMPLES} requests; raise it"
        )
