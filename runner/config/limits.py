"""What each setting may be: the first value out of range is refused in one sentence, before anything is launched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner.config import names, serving
from runner.config.captures import check as check_capture
from runner.matrix.cell import ABSENT
from runner.protocol.errors import RunnerError

if TYPE_CHECKING:
    from runner.config.schema import Config

# rounds=auto: as many as it takes to tell the cells apart.
AUTO = "auto"

# Of any number: as a count, in seconds or in percent. No clock, file or generator of ours takes it for another.
_MOST = 10**9
_MOST_ROUNDS = 10_000
# setting -> (lowest value allowed, what it counts)
_AT_LEAST: dict[str, tuple[float, str]] = {
    "batch_size": (1, "samples an iteration"),
    "warmup": (0, "untimed iterations"),
    "iterations": (1, "timed iterations"),
    "sequence_length": (1, "tokens a sample"),
    "instances": (1, "processes that run the model at the same time"),
    "cores_per_instance": (1, "physical cores"),
    "cores": (1, "physical cores"),
    "threads": (1, "OpenMP threads"),
    "node": (0, "a NUMA node's number"),
    "seed": (0, "a seed"),
    "retries": (0, "further attempts at a failed job"),
    "reruns": (0, "further attempts at a contaminated pass"),
}
_MORE_THAN_ZERO = {
    "min_time_s": "seconds",
    "max_time_s": "seconds",
    "timeout_s": "seconds",
    "target_ci_pct": "percent of the median",
    "budget_min": "minutes",
    "smallest_pct": "percent",
}


def check(config: Config) -> None:
    """Raise RunnerError with one sentence for the first value out of range."""
    for name, (lowest, meaning) in _AT_LEAST.items():
        value = getattr(config, name)
        if value is not None and not lowest <= value <= _MOST:
            bound = f"at least {lowest:g}" if value < lowest else f"at most {_MOST}"
            raise RunnerError(f"{name}={value}: {name} is {meaning} and must be {bound}")
    for name, meaning in _MORE_THAN_ZERO.items():
        value = getattr(config, name)
        # Written so that nan, which compares false with everything, is refused as well.
        if value is not None and not (0 < value <= _MOST):
            raise RunnerError(f"{name}={value}: {name} is in {meaning} and must be above 0 and at most {_MOST}")
    loop = {name: getattr(config, name) for name in ("iterations", "min_time_s", "max_time_s", "target_ci_pct")}
    serving.check(config.scenario, config.load, loop, config.capture)
    if config.rounds != AUTO and (isinstance(config.rounds, str) or not 1 <= config.rounds <= _MOST_ROUNDS):
        raise RunnerError(f"rounds={config.rounds}: rounds is processes a cell, 1 to {_MOST_ROUNDS}, or {AUTO}")
    check_capture(config.capture)
    if config.precision.calibration_batches < 1:
        raise RunnerError(
            f"precision.calibration_batches={config.precision.calibration_batches}: int8 needs at least 1 to see values"
        )
    if not config.model.memory_formats:
        raise RunnerError("model.memory_formats=[]: name at least one, channels_first for a model without images")
    if config.sequence_length is not None and config.model.sequence_length is None:
        raise RunnerError(
            f"sequence_length={config.sequence_length}: model={config.model.name} has no sequences; leave it out, or "
            "give the model's file a default sequence_length"
        )
    if config.twin in ("", ABSENT):
        raise RunnerError(f"twin={config.twin}: a twin needs a name of its own, as in twin=a,b; null for none")
    if config.tracking_uri is not None and not config.tracking_uri.startswith(("http://", "https://")):
        raise RunnerError(
            f"tracking_uri={config.tracking_uri}: it must be the http:// or https:// address of an MLflow server, or "
            "null for a database in mlruns"
        )
    names.check_target("model._target_", config.model._target_)
    names.check_name("model.name", config.model.name)
    names.check_name("allocator.name", config.allocator.name)
    names.check_variables("allocator.env", config.allocator.env)
    names.check_folder("mlruns", config.mlruns)
    if config.twin is not None:
        names.check_name("twin", config.twin)
