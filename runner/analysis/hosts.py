"""Hosts set against each other: the same cell on each, how fast it is there and what a million samples cost. Pure.

Within a host all is as it is on one machine. Across hosts nothing was measured beside anything: a ratio has the
interval of independent measurements, whose unit is the process where each kind of host is one machine, and the machine
where there are several of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from runner.analysis.price import usd_per_million
from runner.protocol.cell import ABSENT, in_words
from runner.results.cells import CellRow, Cells
from runner.results.metric_names import Metric
from runner.stats import Interval
from runner.stats.independent import geometric_mean, ratio

AXIS = "host"


@dataclass(frozen=True)
class Host:
    """One host name, and what follows from it: it stands once, and takes part in no effect."""

    name: str
    sweeps: Sequence[str]
    """The sweeps that were measured on it, each on a machine of its own."""
    cores: int = 0
    """Physical cores of one machine that a sweep uses; 0 if they are not known."""
    usd_per_hour: float | None = None
    """What one machine costs; None where nobody said so."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """The CPU, the kernel, libc, the governor and the like."""


@dataclass(frozen=True)
class OnHost:
    """A cell on one host."""

    host: str
    cells: Sequence[CellRow]
    """One per machine."""
    p50_ms: float
    p99_ms: float | None
    samples_per_s: float | None
    samples_per_s_per_core: float | None
    usd_per_million: float | None
    """USD per million samples, of one machine that does nothing else; None without a price."""
    speedup: float | None = None
    """The first host's latency over this one's; None for the first, and where that one lacks the cell."""
    interval: Interval | None = None
    """The 95 % interval of the speed-up; None where a side has a single process."""


@dataclass(frozen=True)
class Across:
    """One cell on all hosts that have measured it."""

    labels: Mapping[str, str]
    """The axes and settings that distinguish it from the others, without the host."""
    hosts: Sequence[OnHost]


@dataclass(frozen=True)
class HostComparison:
    """Hosts set against each other."""

    hosts: Sequence[Host]
    cells: Sequence[Across]
    """Cheapest first where prices are known, else the fastest first."""
    limit_ms: float | None = None
    """The latency limit that the best cell must keep."""

    @property
    def is_priced(self) -> bool:
        """Whether every host has a price."""
        return all(host.usd_per_hour is not None for host in self.hosts)


def names_of(cells: Cells) -> dict[str, list[str]]:
    """Host name -> its sweeps, where the cells name their hosts and there are several machines; else empty."""
    names: dict[str, list[str]] = {}
    for row in cells.rows:
        sweeps = names.setdefault(row.axes.get(AXIS, ABSENT), [])
        if row.sweep not in sweeps:
            sweeps.append(row.sweep)
    is_named = ABSENT not in names and len({origin.host_id for origin in cells.origins}) > 1
    return names if is_named else {}


def compare(
    cells: Cells, hosts: Sequence[Host], distinguishing: Sequence[str], limit_ms: float | None = None
) -> HostComparison:
    """Set the right cells of these hosts against each other.

    Args:
        cells: cells of all hosts.
        hosts: the hosts, the first of which the others are compared with.
        distinguishing: the axes and settings that distinguish the cells.
        limit_ms: see HostComparison.limit_ms.
    """
    keys = [key for key in distinguishing if key not in (AXIS, "sweep")]
    same: dict[tuple[str, ...], dict[str, list[CellRow]]] = {}
    for row in cells.rows:
        if row.is_right:
            place = tuple(row.labels.get(key, ABSENT) for key in keys)
            same.setdefault(place, {}).setdefault(row.axes[AXIS], []).append(row)
    across = []
    for values, by_host in same.items():
        first = by_host.get(hosts[0].name)
        on_hosts = [_on_host(host, by_host[host.name], first) for host in hosts if host.name in by_host]
        across.append(Across(dict(zip(keys, values, strict=True)), on_hosts))
    made = HostComparison(hosts, across, limit_ms)
    return HostComparison(hosts, sorted(across, key=lambda one: _best(one, made.is_priced)), limit_ms)


def _best(one: Across, is_priced: bool) -> float:
    return min((on.usd_per_million or 0.0) if is_priced else on.p50_ms for on in one.hosts)


def _on_host(host: Host, rows: Sequence[CellRow], first: Sequence[CellRow] | None) -> OnHost:
    p50_ms = geometric_mean([row.p50_ms for row in rows if row.p50_ms])
    p99 = [row.metrics[Metric.P99] for row in rows if Metric.P99 in row.metrics]
    rates = [row.metrics[Metric.SAMPLES_PER_S] for row in rows if row.metrics.get(Metric.SAMPLES_PER_S)]
    rate = geometric_mean(rates) if rates else None
    speedup = interval = None
    if first is not None and first is not rows:
        speedup, interval = ratio(*_units(first, rows))
    return OnHost(
        host=host.name,
        cells=rows,
        p50_ms=p50_ms,
        p99_ms=max(p99) if len(p99) == len(rows) else None,
        samples_per_s=rate,
        samples_per_s_per_core=rate / host.cores if rate and host.cores else None,
        usd_per_million=usd_per_million(host.usd_per_hour, rate),
        speedup=speedup,
        interval=interval,
    )


def _units(first: Sequence[CellRow], second: Sequence[CellRow]) -> tuple[list[float], list[float]]:
    """The figures of the units of replication: machines where both sides have several, else processes."""
    sides = (first, second)
    if min(map(len, sides)) > 1:
        machines = [[median(row.by_round.values()) for row in side if row.by_round] for side in sides]
        return machines[0], machines[1]
    processes = [[value for row in side for value in row.by_round.values()] for side in sides]
    return processes[0], processes[1]


def sentences(found: HostComparison) -> list[str]:
    """What comes out of it, in plain words."""
    every = [(one, on) for one in found.cells for on in one.hosts]
    if not every:
        return ["No cell was measured with a right output on any of these hosts."]
    said = []
    fastest = min(every, key=lambda pair: pair[1].p50_ms)
    said.append(f"Fastest: {_named(*fastest)}, {fastest[1].p50_ms:.4g} ms.")
    priced = [pair for pair in every if pair[1].usd_per_million is not None]
    if priced:
        cheapest = min(priced, key=lambda pair: pair[1].usd_per_million or 0.0)
        said.append(f"Cheapest: {_named(*cheapest)}, {cheapest[1].usd_per_million:.3g} USD per million samples.")
    for host in found.hosts:
        own = [pair for pair in every if pair[1].host == host.name]
        if len(found.cells) > 1 and own:
            said.append(_of_host(host, own))
    if found.limit_ms is not None:
        said.append(_under_limit(every, found.limit_ms))
    if any(len(host.sweeps) == 1 for host in found.hosts):
        said.append(
            "A host of one machine stands for no other of its kind: how much machines of a kind differ is not known."
        )
    return said


def _of_host(host: Host, own: Sequence[tuple[Across, OnHost]]) -> str:
    fastest = min(own, key=lambda pair: pair[1].p50_ms)
    sentence = f"On {host.name} the fastest is {_cell(fastest[0])} ({fastest[1].p50_ms:.4g} ms"
    priced = [pair for pair in own if pair[1].usd_per_million is not None]
    if not priced:
        return f"{sentence})."
    cheapest = min(priced, key=lambda pair: pair[1].usd_per_million or 0.0)
    if cheapest[0] is fastest[0]:
        return f"{sentence}), and the cheapest too ({cheapest[1].usd_per_million:.3g} USD per million)."
    return f"{sentence}), and the cheapest {_cell(cheapest[0])} ({cheapest[1].usd_per_million:.3g} USD per million)."


def _under_limit(every: Sequence[tuple[Across, OnHost]], limit_ms: float) -> str:
    within = [pair for pair in every if pair[1].p99_ms is not None and pair[1].p99_ms <= limit_ms]
    if not within:
        return f"No cell keeps its p99 within {limit_ms:g} ms on any host."
    if all(pair[1].usd_per_million is not None for pair in within):
        best = min(within, key=lambda pair: pair[1].usd_per_million or 0.0)
        return (
            f"With a p99 of at most {limit_ms:g} ms the cheapest is {_named(*best)}: "
            f"{best[1].usd_per_million:.3g} USD per million, p99 {best[1].p99_ms:.4g} ms."
        )
    best = max(within, key=lambda pair: pair[1].samples_per_s or 0.0)
    return (
        f"With a p99 of at most {limit_ms:g} ms the most samples are {_named(*best)}'s: "
        f"{best[1].samples_per_s or 0.0:.4g} per second, p99 {best[1].p99_ms:.4g} ms."
    )


def _named(one: Across, on: OnHost) -> str:
    return f"{on.host}, {_cell(one)}" if one.labels else on.host


def _cell(one: Across) -> str:
    return ", ".join(in_words(one.labels, one.labels)) or "the cell"
