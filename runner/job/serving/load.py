"""Load generators: their command lines, and parsers of what they print. Pure.

``ab`` is a closed loop: each of its clients sends its next request when its last one has been answered. While the
server is slow, the requests that would have come are not sent, so that they are missing from the tail. This is
coordinated omission (Gil Tene, "How NOT to Measure Latency", 2013). ``h2load`` is run as an open loop: each request has
its own time and its own connection, whatever became of the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

CONTENT_TYPE = "application/octet-stream"
# The names of the generators' files in the folder of the load.
AB_REQUESTS, AB_PERCENTILES, H2LOAD_REQUESTS = "requests.tsv", "percentiles.csv", "h2load.tsv"

# What a generator says may be longer than it ran by the rounding of its figures.
_CLOCK_SLACK_S = 0.1


class LoadError(ValueError):
    """The files that a generator left can't be read, or say that requests failed."""


@dataclass(frozen=True)
class Target:
    """Where the requests go, and what each of them carries."""

    url: str
    body: Path
    folder: Path
    """The folder for the generator's own files."""
    answer_within_s: float
    """The seconds after which a request without an answer has failed."""


@dataclass(frozen=True)
class LoadResult:
    """What a load generator saw."""

    requests: int
    wall_s: float
    per_s: float
    """Answers per second, by the generator's own clock."""
    latencies_s: tuple[float, ...]
    """The latency of each request, in the order in which they were sent."""
    late_s: float = 0.0
    """How late the median request of an open loop was sent, in seconds."""


def ab_command(target: Target, requests: int, concurrency: int) -> list[str]:
    """The command line of ab(1).

    Connections are kept (-k), answers may have any length (-l), and ab writes a row per request (-g) and percentiles
    (-e).
    """
    files = ["-g", str(target.folder / AB_REQUESTS), "-e", str(target.folder / AB_PERCENTILES)]
    post = ["-p", str(target.body), "-T", CONTENT_TYPE]
    wait = ["-s", str(max(1, int(target.answer_within_s)))]
    return ["ab", "-q", "-k", "-l", *wait, "-c", str(concurrency), "-n", str(requests), *post, *files, target.url]


def _number(pattern: str, text: str) -> float | None:
    match = re.search(pattern, text, re.M)
    return float(match[1]) if match else None


def read_ab(printed: str, rows: str, requests: int) -> LoadResult:
    """Parse what ab printed and its file of requests.

    The file has a line of names, then one line per request, sorted by total time. Its columns are separated by tabs:
    start as text, start in s since 1970, then connect, processing, total and waiting time in whole ms.

    Raises:
        LoadError: a request failed, was not answered by 2xx, or is missing.
    """
    complete = _number(r"^Complete requests:\s+(\d+)", printed)
    wall_s, per_s = (
        _number(r"^Time taken for tests:\s+([\d.]+) seconds", printed),
        _number(r"^Requests per second:\s+([\d.]+) ", printed),
    )
    if complete is None or wall_s is None or per_s is None:
        last_line = next(
            (line.strip() for line in reversed(printed.splitlines()) if line.strip()), "it printed nothing"
        )
        raise LoadError(f"ab did not finish: {last_line[:200]}")
    failed = int(_number(r"^Failed requests:\s+(\d+)", printed) or 0)
    refused = int(_number(r"^Non-2xx responses:\s+(\d+)", printed) or 0)
    if failed or refused or complete != requests:
        raise LoadError(
            f"{int(complete)} of {requests} requests were answered, {failed} failed, {refused} by an error (non-2xx)"
        )
    try:
        table = [line.split("\t") for line in _whole_lines(rows)[1:]]
        if any(int(row[4]) < 0 for row in table):
            raise ValueError("a latency is below 0: the clock was set back meanwhile")
        # 0 stands for less than half a millisecond, and no latency is zero.
        timed = sorted((int(row[1]), max(int(row[4]), 0.5) / 1e3) for row in table)
    except (IndexError, ValueError) as error:
        raise LoadError(f"ab's file of requests can't be read: {error}") from error
    if len(timed) != requests:
        raise LoadError(f"ab's file of requests has {len(timed)} of {requests}")
    return LoadResult(requests, wall_s, per_s, tuple(seconds for _, seconds in timed))


def _whole_lines(text: str) -> list[str]:
    """The lines of a file of which the last is whole: the digits of one that was cut off make another number.

    Raises:
        ValueError: the last line does not end.
    """
    if text and not text.endswith("\n"):
        raise ValueError("its last line is cut off")
    return text.splitlines()


def period_ms(rate_per_s: float) -> int:
    """The milliseconds between two requests, rounded because h2load's clock knows whole milliseconds only."""
    return max(1, round(1000 / rate_per_s))


def h2load_command(target: Target, requests: int, rate_per_s: float) -> list[str]:
    """The command line of h2load(1) over HTTP/1.1: it opens a new connection every period, each with one request."""
    schedule = ["-r", "1", f"--rate-period={period_ms(rate_per_s)}ms", "-n", str(requests), "-c", str(requests)]
    post = ["-d", str(target.body), "-H", f"content-type: {CONTENT_TYPE}"]
    wait = ["-N", f"{max(1, int(target.answer_within_s))}s"]
    log = f"--log-file={target.folder / H2LOAD_REQUESTS}"
    return ["h2load", "--h1", "-t", "1", *schedule, *post, *wait, log, target.url]


def read_h2load(rows: str, requests: int, rate_per_s: float) -> LoadResult:
    """Parse h2load's log file.

    Its columns are the start in µs since 1970, the HTTP status (-1 if the request failed), and the µs until the end of
    the answer.

    Raises:
        LoadError: a request failed, was not answered by 2xx, or is missing.
    """
    try:
        table = sorted(
            (int(start), int(status), int(took)) for start, status, took in map(str.split, _whole_lines(rows))
        )
        if any(took <= 0 and status >= 0 for _, status, took in table):
            raise ValueError("a latency is not above 0: the clock was set back meanwhile")
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
    return LoadResult(requests, wall_s, requests / wall_s, tuple(took / 1e6 for _, _, took in table), late_s)


def check_clock(result: LoadResult, wall_s: float) -> None:
    """Refuse what a generator measured while the clock of the day was set: both generators read that one.

    Args:
        wall_s: how long the generator ran, on a clock that nobody can set.

    Raises:
        LoadError: it says that it took longer than it ran.
    """
    longest_s = max(result.wall_s, *result.latencies_s)
    if longest_s > wall_s + _CLOCK_SLACK_S:
        raise LoadError(f"it ran for {wall_s:.3g} s and says {longest_s:.3g} s: the clock was set meanwhile")


def percentile(latencies_s: tuple[float, ...], percent: float) -> float:
    """The percentile by nearest rank: the least latency such that ``percent`` % of all are not longer."""
    ordered = sorted(latencies_s)
    return ordered[max(0, -(-len(ordered) * int(10 * percent) // 1000) - 1)]


# A search ends when the ratio of its two bounds is below the first number, or after this many trials.
_CLOSE, _TRIALS = 1.05, 8


def highest_rate(capacity_per_s: float, is_good: Callable[[float], bool]) -> float | None:
    """The highest rate that ``is_good``, found by bisection to within 5 %; None if no rate tried was good.

    Args:
        capacity_per_s: the rate that a closed loop reached; the first trial is at 0.9 times it, none above 1.2 times.
        is_good: tries a rate.
    """
    low, high, rate = 0.0, 1.2 * capacity_per_s, 0.9 * capacity_per_s
    for _ in range(_TRIALS):
        low, high = (rate, high) if is_good(rate) else (low, rate)
        if low and high / low < _CLOSE:
            break
        rate = (low + high) / 2
    return low or None


def load_figures(result: LoadResult) -> Mapping[str, float]:
    """The generator's metrics: throughput and ``load/*``."""
    return {
        "throughput/samples_per_s": result.per_s,
        "load/requests": float(result.requests),
        "load/wall_s": result.wall_s,
        "load/late_ms": 1e3 * result.late_s,
    }
