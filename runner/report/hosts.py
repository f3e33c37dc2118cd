"""Hosts set against each other, as sections of tables and as plain data."""

from __future__ import annotations

from typing import Any

from runner.analysis.hosts import Across, Host, HostComparison, OnHost
from runner.analysis.wording import ratio
from runner.report import notes
from runner.report.columns import interval_text
from runner.report.tables import Section, Value
from runner.report.terminal import label


def section(found: HostComparison, top: int) -> Section:
    """The same cell on each host, at most ``top`` cells; the hosts' facts are in the notes."""
    first = found.hosts[0].name
    has_rates = any(on.samples_per_s for one in found.cells for on in one.hosts)
    has_prices = any(on.usd_per_million for one in found.cells for on in one.hosts)
    headings = [("cell", True), ("host", True), ("p50 ms", False), (f"speed-up over {first}", False), ("95 %", True)]
    headings += [("samples/s", False), ("per core", False)] if has_rates else []
    headings += [("USD per million", False)] if has_prices else []
    rows = []
    for one in found.cells[:top]:
        for number, on in enumerate(one.hosts):
            texts = [
                _name(one) if not number else "",
                on.host,
                f"{on.p50_ms:.4g}",
                _speedup(on),
                interval_text(on.interval),
            ]
            texts += [_figure(on.samples_per_s), _figure(on.samples_per_s_per_core)] if has_rates else []
            texts += [_figure(on.usd_per_million, 3)] if has_prices else []
            rows.append([Value(text) for text in texts])
    below = [*notes.rows_left_out(found.cells, top), *map(legend, found.hosts)]
    return Section("The same cell on each host", headings, rows, below)


def _name(one: Across) -> str:
    return label(one.labels, list(one.labels)) or "all"


def _speedup(on: OnHost) -> str:
    return "-" if on.speedup is None else ratio(on.speedup)


def _figure(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def legend(host: Host) -> str:
    """What follows from a host, in one sentence."""
    machines = f"{len(host.sweeps)} machines, each " if len(host.sweeps) > 1 else ""
    price = "" if host.usd_per_hour is None else f", {host.usd_per_hour:g} USD per hour"
    facts = ", ".join(f"{name} {value}" if name != "cpu" else value for name, value in host.facts.items())
    return f"{host.name}: {machines}{facts}{price}"


def as_data(found: HostComparison) -> dict[str, Any]:
    """The comparison for JSON; what is not known is null."""
    return {
        "hosts": [
            {
                "host": host.name,
                "sweeps": list(host.sweeps),
                "cores": host.cores or None,
                "usd_per_hour": host.usd_per_hour,
                **host.facts,
            }
            for host in found.hosts
        ],
        "limit_ms": found.limit_ms,
        "cells": [{"labels": dict(one.labels), **_of_host(on)} for one in found.cells for on in one.hosts],
    }


def _of_host(on: OnHost) -> dict[str, Any]:
    return {
        "host": on.host,
        "p50_ms": on.p50_ms,
        "p99_ms": on.p99_ms,
        "speedup": on.speedup,
        "speedup_low": on.interval.low if on.interval else None,
        "speedup_high": on.interval.high if on.interval else None,
        "samples_per_s": on.samples_per_s,
        "samples_per_s_per_core": on.samples_per_s_per_core,
        "usd_per_million_samples": on.usd_per_million,
        "cell_ids": [row.cell_id for row in on.cells],
    }
