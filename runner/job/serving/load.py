"""Load generators: their command lines and what they print. Pure.

``ab`` is a closed loop: so many clients, each sending its next request when the last one is answered. While the server
is slow, requests that would have come are not sent, so that they are missing from the tail: coordinated omission (Gil
Tene, "How NOT to Measure Latency", 2013). ``h2load`` is run as an open loop: each request at its own time on a
connection of its own, whatever became of the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

CONTENT_TYPE = "application/octet-stream"
# Files below the load's folder.
AB_REQUESTS, AB_PERCENTILES, H2LOAD_REQUESTS = "requests.tsv", "percentiles.csv", "h2load.tsv"


class LoadError(ValueError):
    """What a generator left can't be read, or says that requests failed."""


@dataclass(frozen=True)
class Target:
    """Where the requests go, and what each carries."""

    url: str
    body: Path
    folder: Path
    """For the generator's own files."""
    answer_within_s: float


@dataclass(frozen=True)
class Measured:
    """What a generator saw."""

    requests: int
    wall_s: float
    per_s: float
    """Answers a second, by the generator's own clock."""
    latencies_s: tuple[float, ...]
    """Latency of each request, in the order they were sent."""
    late_s: float = 0.0
    """Of an open loop: how far the median request was sent behind its time."""


def ab_command(target: Target, requests: int, concurrency: int) -> list[str]:
    """ab(1): connections kept (-k), answers of any length (-l), a row a request (-g), percentiles (-e)."""
    files = ["-g", str(target.folder / AB_REQUESTS), "-e", str(target.folder / AB_PERCENTILES)]
    post = ["-p", str(target.body), "-T", CONTENT_TYPE]
    wait = ["-s", str(max(1, int(target.answer_within_s)))]
    return ["ab", "-q", "-k", "-l", *wait, "-c", str(concurrency), "-n", str(requests), *post, *files, target.url]


def _number(pattern: str, text: str) -> float | None:
    found = re.search(pattern, text, re.M)
    return float(found[1]) if found else None


def read_ab(printed: str, rows: str, requests: int) -> Measured:
    """What ab printed, and its file of requests.

    Its file has a line of names, then tab-separated: start as text, start in s since 1970, connect, processing, total
    and waiting time in whole ms; sorted by total time.

    Raises:
        LoadError: a request failed, was not answered by 2xx, or is missing.
    """
    complete = _number(r"^Complete requests:\s+(\d+)", printed)
    wall_s, per_s = (
        _number(r"^Time taken for tests:\s+([\d.]+) seconds", printed),
        _number(r"^Requests per second:\s+([\d.]+) ", printed),
    )
    if complete is None or wall_s is None or per_s is None:
        said = next((line.strip() for line in reversed(printed.splitlines()) if line.strip()), "nothing")
        raise LoadError(f"ab did not finish: {said[:200]}")
    failed = int(_number(r"^Failed requests:\s+(\d+)", printed) or 0)
    refused = int(_number(r"^Non-2xx responses:\s+(\d+)", printed) or 0)
    if failed or refused or complete != requests:
        raise LoadError(
            f"{int(complete)} of {requests} requests were answered, {failed} failed, {refused} by an error (non-2xx)"
        )
    try:
        table = [line.split("\t") for line in rows.splitlines()[1:]]
        # 0 is less than half a millisecond, and no latency is nothing.
        timed = sorted((int(row[1]), max(int(row[4]), 0.5) / 1e3) for row in table)
    except (IndexError, ValueError) as error:
        raise LoadError(f"ab's file of requests can't be read: {error}") from error
    if len(timed) != requests:
        raise LoadError(f"ab's file of requests has {len(timed)} of {requests}")
    return Measured(requests, wall_s, per_s, tuple(seconds for _, seconds in timed))


def period_ms(rate_per_s: float) -> int:
    """Milliseconds between two requests: h2load's clock knows whole ones only."""
    return max(1, round(1000 / rate_per_s))


def h2load_command(target: Target, requests: int, rate_per_s: float) -> list[str]:
    """h2load(1) over HTTP/1.1: a new connection every period, each with one request."""
    schedule = ["-r", "1", f"--rate-period={period_ms(rate_per_s)}ms", "-n", str(requests), "-c", str(requests)]
    post = ["-d", str(target.body), "-H", f"content-type: {CONTENT_TYPE}"]
    wait = ["-N", f"{max(1, int(target.answer_within_s))}s"]
    log = f"--log-file={target.folder / H2LOAD_REQUESTS}"
    return ["h2load", "--h1", "-t", "1", *schedule, *post, *wait, log, target.url]


def read_h2load(rows: str, requests: int, rate_per_s: float) -> Measured:
    """h2load's log file: start in µs since 1970, HTTP status (-1: failed), µs until the end of the answer.

    Raises:
        LoadError: a request failed, was not answered by 2xx, or is missing.
    """
    try:
        table = sorted(
            (int(start), int(status), int(took)) for start, status, took in map(str.split, rows.splitlines())
        )
    except ValueError as error:
        raise LoadError(f"h2load's file of requests can't be read: {error}") from error
    failed = sum(status < 0 for _, status, _ in table)
    refused = sum(status >= 0 and status // 100 != 2 for _, status, _ in table)
    if failed or refused or len(table) != requests:
        raise LoadError(
            f"{len(table)} of {requests} requests were answered, {failed} failed, {refused} by an error (non-2xx)"
        )
    first = table[0][0]
    wall_s = (max(start + took for start, _, took in table) - first) / 1e6
    period_us = 1000 * period_ms(rate_per_s)
    late_s = median(start - first - i * period_us for i, (start, _, _) in enumerate(table)) / 1e6
    return Measured(requests, wall_s, requests / wall_s, tuple(took / 1e6 for _, _, took in table), late_s)


def percentile(latencies_s: tuple[float, ...], percent: float) -> float:
    """The smallest sample that is not under so many percent of them (nearest rank)."""
    ordered = sorted(latencies_s)
    return ordered[max(0, -(-len(ordered) * int(10 * percent) // 1000) - 1)]


# A search ends when the two rates it is between are so close, or after so many trials.
_CLOSE, _TRIALS = 1.05, 8


def highest_rate(capacity_per_s: float, is_good: Callable[[float], bool]) -> float | None:
    """The highest rate that ``is_good``, by bisection, to within 5 %; None when none of those tried was.

    Args:
        capacity_per_s: what a closed loop reached: the first trial is at 9/10 of it, and none is past 12/10.
    """
    low, high, rate = 0.0, 1.2 * capacity_per_s, 0.9 * capacity_per_s
    for _ in range(_TRIALS):
        low, high = (rate, high) if is_good(rate) else (low, rate)
        if low and high / low < _CLOSE:
            break
        rate = (low + high) / 2
    return low or None


def own_figures(measured: Measured) -> Mapping[str, float]:
    """Metrics of the generator: ``load/*``."""
    return {
        "throughput/samples_per_s": measured.per_s,
        "load/requests": float(measured.requests),
        "load/wall_s": measured.wall_s,
        "load/late_ms": 1e3 * measured.late_s,
    }
