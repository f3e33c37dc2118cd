"""The axes ``scenario`` and ``load``: what calls the model. Standard library only, as runner.protocol.cell."""

from __future__ import annotations

from dataclasses import dataclass

from runner.protocol.declaration import setting

INFERENCE = "inference"


@dataclass(frozen=True)
class Scenario:
    """What calls the model: a loop in its own process (INFERENCE), or clients through a server of that name."""

    name: str = INFERENCE
    requests: int | None = setting(
        "Behind a server: requests of the measured load.",
        None,
        least=1,
        most=10**6,
        unit="requests of the measured load",
    )
    concurrency: int | None = setting(
        "Behind a server: clients that each wait for an answer, in a closed loop and in the warm-up.",
        None,
        least=1,
        most=10**6,
        unit="clients",
        is_work=True,
    )
    max_batch_delay_ms: int | None = setting(
        "Behind a server: milliseconds that it waits for a batch to fill.",
        None,
        least=0,
        most=10**6,
        unit="milliseconds that a batch waits to fill",
        is_work=True,
    )

    @property
    def is_served(self) -> bool:
        """Whether the model is behind a server."""
        return self.name != INFERENCE


@dataclass(frozen=True)
class Load:
    """What sends the requests; a rate or a limit of p99 is for open loops only, and one of the two is None."""

    name: str | None = None
    rate_per_s: float | None = setting(
        "For h2load: requests per second, whatever becomes of them; its schedule is in whole milliseconds.",
        None,
        above=0,
        most=1000,
        unit="requests per second",
        is_work=True,
    )
    p99_limit_ms: float | None = setting(
        "For h2load: the highest rate is searched whose p99 stays below this many milliseconds.",
        None,
        above=0,
        most=10**6,
        unit="milliseconds",
        is_work=True,
    )
