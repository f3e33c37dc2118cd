"""Requested = effective, or the job fails: each axis compares what was asked with the worker's evidence.

Pure. A new axis adds one function to CHECKS; it yields a Mismatch for each thing that isn't as asked. What could not be
observed (None) is never as asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from runner.checks import (
    arithmetic,
    cache,
    fp32_math,
    graph,
    honoured,
    memory_format,
    precision,
    streams,
    torch_build,
)
from runner.checks.proof import Mismatch as Mismatch
from runner.checks.proof import Proof as Proof
from runner.checks.proof import shown
from runner.launch import PlacedCell
from runner.launch.xeon import MODULE as LAUNCHER
from runner.machine.host import format_cpu_list
from runner.protocol.evidence import CallEvidence
from runner.protocol.verdicts import UNOBSERVED

_ALLOCATOR_FILE = {
    "glibc": ("libc.so", "libc-"),
    "jemalloc": ("libjemalloc.so",),
    "mimalloc": ("libmimalloc.so",),
    "tcmalloc": ("libtcmalloc.so",),
    "tcmalloc_minimal": ("libtcmalloc_minimal.so",),
}
# A library -> the allocator that it is, where it is not named after it.
_ANSWERS_AS = {"tcmalloc_minimal": "tcmalloc"}
_READ_LOGS = "see stderr.log of the job for what the launcher printed"


def _check_allocator(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    allocator, actual = placed.cell.allocator, proof.evidence.allocator
    owners = {"malloc": actual.malloc, "free": actual.free, "posix_memalign": actual.posix_memalign}
    for symbol, file in owners.items():
        if file is None or not PurePath(file).name.startswith(_ALLOCATOR_FILE[allocator.library]):
            yield Mismatch(
                "allocator",
                f"{symbol} of {allocator.library} ({allocator.name})",
                shown(file),
                f"the launcher did not preload the library; {_READ_LOGS}",
            )
            return
    answering = sorted(name for name, version in actual.answers.items() if version is not None)
    wanted = _ANSWERS_AS.get(allocator.library, allocator.library)
    if answering != [wanted]:
        yield Mismatch(
            "allocator",
            f"a library that answers as {wanted} alone ({allocator.name})",
            f"{actual.malloc}, which answers as {' and '.join(answering) or 'no allocator that is known'}",
            "the file has another allocator's name; install the library anew",
        )
    elif actual.owns_tensors is not True:
        yield Mismatch(
            "allocator",
            f"tensors in the memory of {wanted} ({allocator.name})",
            UNOBSERVED if actual.owns_tensors is None else "a tensor elsewhere",
            "this torch build has an allocator of its own for tensors, which no library can replace",
        )
    if allocator.library in placed.libraries and actual.malloc != str(placed.libraries[allocator.library]):
        yield Mismatch(
            "allocator",
            str(placed.libraries[allocator.library]),
            shown(actual.malloc),
            "another copy of the library was loaded first",
        )
    for name, value in allocator.env.items():
        live = proof.evidence.environment.get(name)
        if live != value:
            yield Mismatch(
                "allocator", f"{name}={value}", "no such variable" if live is None else live, "something else set it"
            )
    yield from _check_settings(allocator.name, allocator.expect, asdict(actual), "")


def _check_settings(name: str, expect: Mapping[str, Any], actual: Mapping[str, Any], prefix: str) -> Iterator[Mismatch]:
    for key, wanted in expect.items():
        value = actual.get(key)
        if isinstance(wanted, Mapping):
            yield from _check_settings(name, wanted, value if isinstance(value, Mapping) else {}, f"{prefix}{key}.")
        elif value != wanted:
            yield Mismatch(
                "allocator",
                f"{prefix}{key} = {wanted} ({name})",
                shown(value),
                "the allocator did not take its settings from the environment",
            )


def _check_openmp(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    wanted = "libiomp5" if placed.cell.openmp == "intel" else "libgomp"
    file = proof.evidence.openmp.owner
    if file is None or not PurePath(file).name.startswith(wanted):
        yield Mismatch("openmp", f"{wanted} ({placed.cell.openmp})", shown(file), _READ_LOGS)


def _check_threads(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    wanted, openmp = placed.placement.threads, proof.evidence.openmp
    for name, threads in (("torch_threads", openmp.torch_threads), ("max_threads", openmp.max_threads)):
        if threads != wanted:
            yield Mismatch(
                "threads", str(wanted), f"{name} = {shown(threads)}", "something set the thread count meanwhile"
            )


def _check_cores(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    wanted, affinity = placed.placement.cores, proof.evidence.affinity
    if not set(affinity.allowed) <= set(wanted) or not affinity.allowed:
        yield Mismatch("cores", placed.placement.core_list, format_cpu_list(tuple(affinity.allowed)), _READ_LOGS)
        return
    if any(thread.cpus is None for thread in affinity.threads):
        yield Mismatch("cores", placed.placement.core_list, f"a thread whose CPUs are {UNOBSERVED}", _READ_LOGS)
        return
    covered = {cpu for thread in affinity.threads for cpu in thread.cpus or ()}
    cpus = format_cpu_list(tuple(sorted(covered)))
    if not covered <= set(wanted):
        yield Mismatch("cores", placed.placement.core_list, f"a thread on {cpus}", "a thread moved away")
    elif len(covered) < placed.placement.threads:
        yield Mismatch(
            "cores",
            f"{placed.placement.threads} cores of {placed.placement.core_list}",
            f"all threads on {cpus}",
            _READ_LOGS,
        )


def _check_memory_node(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    if placed.placement.task_manager != "numactl":
        return
    wanted, policy = f"bind:{placed.placement.node}", proof.evidence.affinity.memory_policy
    if policy != wanted:
        yield Mismatch(
            "node",
            f"memory policy {wanted}",
            shown(policy),
            "numactl did not bind; launcher.task_manager=taskset does without",
        )


def _check_ipex(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    ipex, compiled, cell = proof.evidence.ipex, proof.evidence.graph, placed.cell
    if not cell.uses_ipex:
        if ipex.imported:
            yield Mismatch(
                "ipex", "off", "IPEX imported", "the model's code imports it: it changes operators when imported"
            )
        return
    if not ipex.imported:
        yield Mismatch("ipex", cell.ipex, "IPEX not imported", "check the installation")
        return
    nothing = "IPEX has nothing to optimize in this model: leave the cell out"
    if cell.graph.is_inductor:
        if compiled.compiler != "ipex" or not compiled.graphs:
            actual = f"compiled by {shown(compiled.compiler)}, graphs {shown(compiled.graphs)}"
            yield Mismatch("ipex", cell.ipex, actual, nothing)
    elif cell.precision.name == "int8":
        # The recipe replaces no module: its work is in the graph, as partitions of oneDNN Graph.
        if not any("Llga" in kind or kind.startswith("ipex") for kind in compiled.nodes or ()):
            yield Mismatch("ipex", cell.ipex, "no node of IPEX's in the TorchScript graph", nothing)
    elif cell.precision.name == "int8_dynamic":
        # Its recipe puts torch's own quantized linears into the model.
        if not (proof.evidence.precision.recipe or "").startswith("ipex"):
            yield Mismatch("ipex", cell.ipex, f"quantized by {shown(proof.evidence.precision.recipe)}", nothing)
    elif ipex.modules_replaced < 1:
        yield Mismatch("ipex", cell.ipex, "0 modules replaced by ipex.optimize", nothing)


def _check_batch_size(wanted: int, tensors: CallEvidence) -> Iterator[Mismatch]:
    """Check the number of samples.

    The model's callable may count them; otherwise one dimension of an input, or the length of a list, is the batch.
    """
    shapes = tensors.inputs.shapes or []
    if tensors.samples is not None:
        if tensors.samples != wanted:
            yield Mismatch(
                "batch_size",
                str(wanted),
                f"{tensors.samples} samples, as the model's callable counts them",
                "the model's callable must honour batch_size: throughput is computed from it",
            )
    elif wanted not in {size for shape in shapes for size in shape} | set(tensors.lengths):
        sizes = " and ".join("x".join(map(str, shape)) for shape in shapes[:4] if shape)
        yield Mismatch(
            "batch_size",
            str(wanted),
            f"inputs of {sizes or 'no batch'}",
            "the model's callable must honour batch_size, from which throughput is computed; where no dimension of its "
            "inputs is the batch, it returns the number of samples in them as a third value",
        )


def _check_work(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """Every cell does the work that was asked for: this batch, in inference mode."""
    evidence = proof.evidence
    yield from _check_batch_size(placed.cell.batch_size, evidence.tensors)
    if evidence.grad_mode != "inference_mode":
        cure = "the model's code turns gradients on: leave them off, as they are"
        yield Mismatch("work", "inference_mode", evidence.grad_mode, cure)


# Cores that a process may keep busy beyond its threads (an allocator's background thread), and the seconds by which the
# kernel's count of a thread that is running may be late: one tick.
_BUSY_BEYOND, _TICK_S = 0.25, 0.02


def _check_busy(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """No more threads compute than were asked for: the others' work may go on after the iteration."""
    window, threads = proof.window, placed.placement.threads
    used_s = window.user_s + window.system_s if window else 0.0
    if window and used_s > (threads + _BUSY_BEYOND) * window.wall_s + (threads + 1) * _TICK_S:
        actual = f"{used_s / window.wall_s:.1f} cores busy while the iterations were timed"
        cure = "the model has threads of its own, whose work may go on after forward() has returned"
        yield Mismatch("threads", str(threads), actual, cure)


def _check_serving(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """Behind a server: the worker that proves itself answered all requests, and was started by the launcher."""
    if not placed.cell.scenario.is_served:
        return
    serving = proof.evidence.serving
    if serving is None:
        yield Mismatch("serving", "requests to a server", UNOBSERVED, "the worker called the model itself")
        return
    if LAUNCHER not in serving.started_by:
        yield Mismatch(
            "launcher",
            LAUNCHER,
            " ".join(serving.started_by)[:200] or "nothing",
            "the server went on without its CPU launcher; see its logs",
        )
    if serving.requests != placed.cell.scenario.requests:
        yield Mismatch(
            "requests",
            str(placed.cell.scenario.requests),
            f"{serving.requests} in this worker",
            "another worker, or another client, took part",
        )


CHECKS: tuple[Callable[[PlacedCell, Proof], Iterator[Mismatch]], ...] = (
    torch_build.check,
    _check_allocator,
    honoured.check_live_settings,
    _check_openmp,
    _check_threads,
    _check_cores,
    _check_memory_node,
    _check_ipex,
    streams.check,
    memory_format.check,
    cache.check,
    precision.check,
    fp32_math.check,
    graph.check,
    _check_work,
    honoured.check_sequence_length,
    honoured.check_process_state,
    arithmetic.check,
    _check_busy,
    _check_serving,
)


def check(placed: PlacedCell, proof: Proof | None) -> tuple[Mismatch, ...]:
    """Every mismatch of every axis; empty when the cell ran as asked. A worker without proof proves nothing."""
    if proof is None:
        return (Mismatch("evidence", "the worker's look at itself", UNOBSERVED, "see stderr.log of the job"),)
    return tuple(mismatch for axis_check in CHECKS for mismatch in axis_check(placed, proof))
