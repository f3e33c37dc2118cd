"""Hosts set against each other, as sections of tables and as plain data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.analysis.hosts import Across, Host, HostComparison, OnHost
from runner.analysis.wording import ratio
from runner.protocol.cell import in_words
from runner.report import notes
from runner.report.columns import interval_text
from runner.report.tables import Section, Value


def section(found: HostComparison, top: int) -> Section:
    """The same cell on each host, at most ``top`` cells, a line for each host; the hosts' facts are in the notes."""
    headings, columns = _columns(found)
    rows = []
    for one in found.cells[:top]:
        for on in one.hosts:
            name = _name(one) if on is one.hosts[0] else ""
            rows.append([Value(name), Value(on.host), *(Value(text(on)) for text in columns)])
    return Section(_TITLE, [("cell", True), ("host", True), *headings], rows, _notes(found, top))


def narrow_section(found: HostComparison, top: int) -> Section:
    """The same in fewer columns, for a terminal: the name of a cell has a line of its own, above those of its hosts."""
    headings, columns = _columns(found, is_narrow=True)
    rows = []
    for one in found.cells[:top]:
        rows.append([Value(_name(one)), *(Value("") for _ in columns)])
        rows += [[Value(f"  {on.host}"), *(Value(text(on)) for text in columns)] for on in one.hosts]
    return Section(_TITLE, [("cell", True), *headings], rows, _notes(found, top))


_TITLE = "The same cell on each host"
_Text = Callable[[OnHost], str]


def _columns(found: HostComparison, is_narrow: bool = False) -> tuple[list[tuple[str, bool]], list[_Text]]:
    """The headings of the figures, and what makes their texts."""
    every = [on for one in found.cells for on in one.hosts]
    between = "\n" if is_narrow else " "
    columns: list[tuple[str, bool, _Text]] = [
        ("p50 ms", False, lambda on: f"{on.p50_ms:.4g}"),
        ("speed-up", False, lambda on: "-" if on.speedup is None else ratio(on.speedup)),
        (f"95 %{between}interval", True, lambda on: _interval(on, is_narrow)),
    ]
    if any(on.samples_per_s for on in every):
        columns.append(("samples/s", False, lambda on: _figure(on.samples_per_s)))
    if any(on.samples_per_s_per_core for on in every) and not is_narrow:
        columns.append(("per core", False, lambda on: _figure(on.samples_per_s_per_core)))
    if any(on.usd_per_million for on in every):
        columns.append((f"USD per{between}million", False, lambda on: _figure(on.usd_per_million, 3)))
    return [(heading, is_word) for heading, is_word, _ in columns], [text for _, _, text in columns]


def _interval(on: OnHost, is_narrow: bool) -> str:
    text = interval_text(on.interval)
    return text.replace("x to ", "-").rstrip("x") if is_narrow else text


def _notes(found: HostComparison, top: int) -> list[str]:
    first = found.hosts[0].name
    meaning = (
        f"speed-up: how many times as fast as on {first}; nothing ran side by side, and its interval allows for that; "
        "one that holds 1 shows no difference"
    )
    return [*notes.rows_left_out(found.cells, top), meaning, *map(legend, found.hosts)]


def _name(one: Across) -> str:
    return ", ".join(in_words(one.labels, one.labels)) or "all"


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
