"""Whether IPEX's runtime extension called the model: in so many streams, each on cores of its own, where it computed.

What is proved of ``ipex=on`` is proved of the module inside the streams by the checks that prove it there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from runner.checks.proof import Mismatch, Proof, shown
from runner.launch import PlacedCell
from runner.machine.host import format_cpu_list
from runner.protocol.evidence import StreamsEvidence

# The share of an even part of the threads' CPU time that each stream uses at least: parts of a batch differ by one
# sample at most, and small models leave streams to wait for each other.
_LEAST = 0.25
# What the thread that calls the model may use without a comparison: it splits inputs and joins outputs, in Python.
_CALLER_S = 1e-3


def check(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """The mismatches of ``ipex=multistream`` and of ``streams``."""
    asked, streams = placed.cell.ipex, proof.evidence.streams
    if streams is None:
        if placed.cell.has_streams:
            cure = "the model was called without IPEX's runtime extension"
            yield Mismatch("ipex", asked, "a module that is no MultiStreamModule", cure)
        return
    if not placed.cell.has_streams:
        yield Mismatch("ipex", asked, "a MultiStreamModule", "the model's callable must return a plain module")
        return
    wanted = placed.placement.streams
    if (streams.number, len(streams.pools)) != (wanted, wanted):
        actual = f"{streams.number} streams on {len(streams.pools)} pools of cores"
        yield Mismatch("streams", str(wanted), actual, "IPEX left some out; see its warnings in stderr.log of the job")
        return
    yield from _check_pools(placed, streams)
    yield from _check_work(streams)


def _check_pools(placed: PlacedCell, streams: StreamsEvidence) -> Iterator[Mismatch]:
    """The pools are parts of the instance's cores, and together all of them."""
    cpus = sorted(cpu for pool in streams.pools for cpu in pool)
    if cpus != sorted(placed.placement.cores):
        yield Mismatch(
            "streams",
            f"cores {placed.placement.core_list}, each in one pool",
            f"pools of {_in_words(streams.pools)}",
            "IPEX leaves out cores on which its process may not run",
        )


def _check_work(streams: StreamsEvidence) -> Iterator[Mismatch]:
    """The threads that are bound to the cores of each pool have computed, and no others have done more than they."""
    by_pool = [
        sum(thread.cpu_s for thread in streams.threads if thread.cpus and set(thread.cpus) <= set(pool))
        for pool in streams.pools
    ]
    elsewhere = [thread for thread in streams.threads if not _is_in_one(thread.cpus, streams.pools)]
    where = f"other threads computed instead, on {_in_words([thread.cpus for thread in elsewhere])}"
    even_s = sum(thread.cpu_s for thread in streams.threads) / len(streams.pools)
    for pool, seconds in zip(streams.pools, by_pool, strict=True):
        if not seconds > _LEAST * even_s:
            yield Mismatch(
                "streams",
                f"threads that compute on the cores {format_cpu_list(tuple(pool))}",
                f"{1e3 * seconds:.3g} ms of their CPU time per iteration",
                where if elsewhere else "this stream had next to nothing to do",
            )
    pooled_s, others_s = sum(by_pool), sum(thread.cpu_s for thread in elsewhere)
    for whose, used_s, least_s, cure in (
        ("threads outside of the pools", others_s, 0.0, where),
        ("the calling thread", streams.caller_s, _CALLER_S, "the model was called there as well"),
    ):
        if used_s > max(pooled_s, least_s):
            yield Mismatch(
                "streams",
                "an iteration whose work is done in the streams",
                f"{1e3 * used_s:.3g} ms of CPU time in {whose}, {1e3 * pooled_s:.3g} ms in the streams",
                cure,
            )


def _is_in_one(cpus: list[int] | None, pools: list[list[int]]) -> bool:
    return cpus is not None and any(set(cpus) <= set(pool) for pool in pools)


def _in_words(groups: Sequence[Sequence[int] | None]) -> str:
    return " and ".join(shown(None) if cpus is None else format_cpu_list(tuple(cpus)) for cpus in groups) or "none"
