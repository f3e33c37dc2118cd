"""Requested = effective, or the job fails: each axis compares what was asked with the worker's evidence.

Pure. A new axis adds one function to CHECKS; it yields a Mismatch for each thing that isn't as asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from runner.host import format_cpu_list, parse_cpu_list
from runner.launch import Plan

Evidence = Mapping[str, Any]


@dataclass(frozen=True)
class Mismatch:
    """One thing that did not run as asked."""

    axis: str
    asked: str
    found: str
    cure: str

    def __str__(self) -> str:
        return f"{self.axis}: asked for {self.asked}, found {self.found}; {self.cure}"


_ALLOCATOR_FILE = {"glibc": ("libc.so", "libc-"), "jemalloc": ("libjemalloc.so",), "tcmalloc": ("libtcmalloc.so",)}
_READ_LOGS = "see stderr.log of the job for what the launcher said"


def _check_allocator(plan: Plan, evidence: Evidence) -> Iterator[Mismatch]:
    allocator, found = plan.cell.allocator, evidence["allocator"]
    for symbol in ("malloc", "free", "posix_memalign"):
        file = found.get(symbol)
        if file is None or not PurePath(file).name.startswith(_ALLOCATOR_FILE[allocator.library]):
            yield Mismatch(
                "allocator",
                f"{symbol} of {allocator.library} ({allocator.name})",
                str(file),
                f"the launcher did not preload the library; {_READ_LOGS}",
            )
            return
    if allocator.library in plan.libraries and found["malloc"] != str(plan.libraries[allocator.library]):
        yield Mismatch(
            "allocator",
            str(plan.libraries[allocator.library]),
            found["malloc"],
            "another copy of the library was loaded first",
        )
    for name, value in allocator.env.items():
        if evidence["environment"].get(name) != value:
            yield Mismatch(
                "allocator", f"{name}={value}", str(evidence["environment"].get(name)), "something else set it"
            )
    yield from _check_settings(allocator.name, allocator.expect, found, "")


def _check_settings(name: str, expect: Mapping[str, Any], found: Mapping[str, Any], prefix: str) -> Iterator[Mismatch]:
    for key, wanted in expect.items():
        value = found.get(key)
        if isinstance(wanted, Mapping):
            yield from _check_settings(name, wanted, value if isinstance(value, Mapping) else {}, f"{prefix}{key}.")
        elif value != wanted:
            yield Mismatch(
                "allocator",
                f"{prefix}{key} = {wanted} ({name})",
                "unobserved" if value is None else str(value),
                "the allocator did not take its settings from the environment",
            )


def _check_openmp(plan: Plan, evidence: Evidence) -> Iterator[Mismatch]:
    wanted = "libiomp5" if plan.cell.openmp == "intel" else "libgomp"
    file = evidence["openmp"]["owner"]
    if file is None or not PurePath(file).name.startswith(wanted):
        yield Mismatch("openmp", f"{wanted} ({plan.cell.openmp})", str(file), _READ_LOGS)


def _check_threads(plan: Plan, evidence: Evidence) -> Iterator[Mismatch]:
    wanted = plan.placement.threads
    for name in ("torch_threads", "max_threads"):
        if evidence["openmp"][name] != wanted:
            yield Mismatch(
                "threads",
                str(wanted),
                f"{name} = {evidence['openmp'][name]}",
                "something set the thread count meanwhile",
            )


def _check_cores(plan: Plan, evidence: Evidence) -> Iterator[Mismatch]:
    wanted = plan.placement.cores
    allowed = tuple(evidence["affinity"]["allowed"])
    if not set(allowed) <= set(wanted) or not allowed:
        yield Mismatch("cores", plan.placement.core_list, format_cpu_list(allowed), _READ_LOGS)
        return
    covered: set[int] = set()
    for cpus in evidence["affinity"]["threads_allowed"]:
        covered.update(parse_cpu_list(cpus))
    if not covered <= set(wanted):
        yield Mismatch(
            "cores",
            plan.placement.core_list,
            f"a thread on {format_cpu_list(tuple(sorted(covered)))}",
            "a thread moved away",
        )
    elif len(covered) < plan.placement.threads:
        yield Mismatch(
            "cores",
            f"{plan.placement.threads} cores of {plan.placement.core_list}",
            f"all threads on {format_cpu_list(tuple(sorted(covered)))}",
            _READ_LOGS,
        )


def _check_memory_node(plan: Plan, evidence: Evidence) -> Iterator[Mismatch]:
    if plan.placement.task_manager != "numactl":
        return
    wanted = f"bind:{plan.placement.node}"
    policy = evidence["affinity"]["memory_policy"]
    if policy != wanted:
        yield Mismatch(
            "node",
            f"memory policy {wanted}",
            policy or "unobserved",
            "numactl did not bind; launcher.task_manager=taskset does without",
        )


def _check_ipex(plan: Plan, evidence: Evidence) -> Iterator[Mismatch]:
    found = evidence["ipex"]
    if plan.cell.ipex == "off":
        if found["imported"]:
            yield Mismatch(
                "ipex", "off", "IPEX imported", "the model's code imports it: it changes operators when imported"
            )
    elif not found["imported"]:
        yield Mismatch("ipex", "on", "IPEX not imported", "check the installation")
    elif found["modules_replaced"] < 1:
        yield Mismatch(
            "ipex",
            "on",
            "0 modules replaced by ipex.optimize",
            "IPEX has nothing to optimize in this model: leave the cell out",
        )


def _check_work(plan: Plan, evidence: Evidence) -> Iterator[Mismatch]:
    """The work of one iteration is the same in every cell: fp32, inference mode, the batch asked for."""
    for name in ("inputs", "weights"):
        dtypes = set(evidence["tensors"][name]["dtypes"])
        floats = {dtype for dtype in dtypes if "float" in dtype}
        if floats - {"float32"}:
            yield Mismatch("work", f"{name} in float32", ", ".join(sorted(dtypes)), "the model converts them itself")
    batches = {shape[0] for shape in evidence["tensors"]["inputs"]["shapes"] if shape}
    if batches != {plan.cell.batch_size}:
        yield Mismatch(
            "batch_size",
            str(plan.cell.batch_size),
            f"inputs of {', '.join(map(str, sorted(batches))) or 'no batch'}",
            "the model's callable must honour batch_size: throughput is computed from it",
        )
    if evidence["grad_mode"] != "inference_mode":
        yield Mismatch("work", "inference_mode", str(evidence["grad_mode"]), "the worker is of another version")


CHECKS: tuple[Callable[[Plan, Evidence], Iterator[Mismatch]], ...] = (
    _check_allocator,
    _check_openmp,
    _check_threads,
    _check_cores,
    _check_memory_node,
    _check_ipex,
    _check_work,
)


def check(plan: Plan, evidence: Evidence) -> tuple[Mismatch, ...]:
    """Every mismatch of every axis; empty when the cell ran as asked.

    Evidence that lacks what a check reads is itself a mismatch: what can't be seen is not assumed.
    """
    found: list[Mismatch] = []
    for axis_check in CHECKS:
        try:
            found.extend(axis_check(plan, evidence))
        except (KeyError, TypeError, ValueError) as error:
            axis = axis_check.__name__.removeprefix("_check_")
            found.append(
                Mismatch(axis, "evidence", f"{type(error).__name__}: {error}", "the worker's evidence is incomplete")
            )
    return tuple(found)
