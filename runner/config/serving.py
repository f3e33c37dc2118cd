"""What conf/scenario/*.yaml and conf/load/*.yaml may say, and its checks. Mutable, for Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from runner.config.captures import CaptureConf
from runner.matrix.cell import Load, Scenario
from runner.protocol.errors import RunnerError


class ScenarioName(Enum):
    """What calls the model."""

    inference = "inference"
    torchserve = "torchserve"


class LoadName(Enum):
    """What sends the requests."""

    none = "none"
    ab = "ab"
    h2load = "h2load"


@dataclass
class ScenarioConf:
    """conf/scenario: all but the name is null in inference, which has no requests."""

    name: ScenarioName = ScenarioName.inference
    requests: int | None = None
    concurrency: int | None = None
    max_batch_delay_ms: int | None = None
    # first of the server's own ports; null: free ones
    port: int | None = None


@dataclass
class LoadConf:
    """conf/load."""

    name: LoadName = LoadName.none
    rate_per_s: float | None = None
    # search the highest rate whose p99 stays under so many ms, instead of a fixed rate
    p99_limit_ms: float | None = None


def scenario_of(conf: ScenarioConf) -> Scenario:
    """The frozen one: without the port, which changes no result."""
    return Scenario(conf.name.value, conf.requests, conf.concurrency, conf.max_batch_delay_ms)


def load_of(conf: LoadConf) -> Load:
    """The frozen one."""
    return Load(None if conf.name is LoadName.none else conf.name.value, conf.rate_per_s, conf.p99_limit_ms)


# setting of the scenario -> (least, what it counts)
_AT_LEAST = {
    "requests": (1, "requests of the measured load"),
    "concurrency": (1, "clients"),
    "max_batch_delay_ms": (0, "milliseconds that a batch waits to fill"),
}
# Of requests, clients and milliseconds.
_MOST = 10**6
# The server takes five ports from the first on.
_LAST_PORT = 65535 - 4
# h2load's schedule is in whole milliseconds.
MOST_PER_S = 1000.0
# stats.estimates gives no p99 of fewer.
_P99_SAMPLES = 200


def check(scenario: ScenarioConf, load: LoadConf, loop: Mapping[str, float | None], captures: CaptureConf) -> None:
    """Raise RunnerError with one sentence for the first value that is out of range, or of the other scenario.

    Args:
        loop: the settings of the timed loop, which has no place behind a server.
    """
    if scenario.name is ScenarioName.inference:
        _check_inference(scenario, load, loop)
        return
    name = f"scenario={scenario.name.value}"
    for setting, (least, meaning) in _AT_LEAST.items():
        value = getattr(scenario, setting)
        if value is None or not least <= value <= _MOST:
            raise RunnerError(f"scenario.{setting}={value}: it is {meaning} and must be {least} to {_MOST}")
    if scenario.port is not None and not 1024 <= scenario.port <= _LAST_PORT:
        raise RunnerError(f"scenario.port={scenario.port}: choose 1024 to {_LAST_PORT}, or null for free ones")
    for setting, value in loop.items():
        if value is not None:
            raise RunnerError(
                f"{setting}={value:g}: it is of the timed loop, and {name} measures scenario.requests; leave it out"
            )
    if captures.toplev is not None or (captures.itt is not None and captures.itt.vtune):
        raise RunnerError(
            f"capture with toplev or VTune: they launch the cell again around the timed loop, which {name} has not; "
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
            raise RunnerError(f"{setting}=null: the timed loop of scenario=inference needs it in seconds")
    if least_s and most_s and most_s < least_s:
        raise RunnerError(f"max_time_s={most_s:g}: a pass lasts at least min_time_s={least_s:g}; set both")


def _check_load(scenario: ScenarioConf, load: LoadConf, name: str) -> None:
    if load.name is LoadName.none:
        raise RunnerError(f"load=none: {name} needs requests; choose load=ab or load=h2load")
    rate, limit = load.rate_per_s, load.p99_limit_ms
    if load.name is LoadName.ab:
        if rate is not None or limit is not None:
            raise RunnerError(
                "load.rate_per_s and load.p99_limit_ms: ab sends the next request when one is answered and keeps no "
                "rate; choose load=h2load"
            )
        if (scenario.requests or 0) < (scenario.concurrency or 0):
            raise RunnerError(
                f"scenario.requests={scenario.requests}: ab needs at least as many as scenario.concurrency="
                f"{scenario.concurrency}"
            )
        return
    if (rate is None) == (limit is None):
        raise RunnerError(
            "load=h2load: give one of load.rate_per_s=20 (a fixed rate) and load.p99_limit_ms=500 (the highest rate "
            "whose p99 stays under it)"
        )
    if rate is not None and not 0 < rate <= MOST_PER_S:
        raise RunnerError(f"load.rate_per_s={rate:g}: requests a second, above 0 and at most {MOST_PER_S:g}")
    if limit is not None and not 0 < limit <= _MOST:
        raise RunnerError(f"load.p99_limit_ms={limit:g}: milliseconds, above 0 and at most {_MOST}")
    if limit is not None and (scenario.requests or 0) < _P99_SAMPLES:
        raise RunnerError(
            f"scenario.requests={scenario.requests}: a p99 needs at least {_P99_SAMPLES} requests; raise it"
        )
