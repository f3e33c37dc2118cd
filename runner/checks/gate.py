"""Requested = effective, or the job fails: each axis compares what was asked with the worker's evidence.

Pure. A new axis adds one function to CHECKS; it yields a Mismatch for each thing that isn't as asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from runner.launch import PlacedCell
from runner.launch.xeon import MODULE as LAUNCHER
from runner.machine.host import format_cpu_list, parse_cpu_list

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


def _check_allocator(placed: PlacedCell, evidence: Evidence) -> Iterator[Mismatch]:
    allocator, found = placed.cell.allocator, evidence["allocator"]
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
    if allocator.library in placed.libraries and found["malloc"] != str(placed.libraries[allocator.library]):
        yield Mismatch(
            "allocator",
            str(placed.libraries[allocator.library]),
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


def _check_openmp(placed: PlacedCell, evidence: Evidence) -> Iterator[Mismatch]:
    wanted = "libiomp5" if placed.cell.openmp == "intel" else "libgomp"
    file = evidence["openmp"]["owner"]
    if file is None or not PurePath(file).name.startswith(wanted):
        yield Mismatch("openmp", f"{wanted} ({placed.cell.openmp})", str(file), _READ_LOGS)


def _check_threads(placed: PlacedCell, evidence: Evidence) -> Iterator[Mismatch]:
    wanted = placed.placement.threads
    for name in ("torch_threads", "max_threads"):
        if evidence["openmp"][name] != wanted:
            yield Mismatch(
                "threads",
                str(wanted),
                f"{name} = {evidence['openmp'][name]}",
                "something set the thread count meanwhile",
            )


def _check_cores(placed: PlacedCell, evidence: Evidence) -> Iterator[Mismatch]:
    wanted = placed.placement.cores
    allowed = tuple(evidence["affinity"]["allowed"])
    if not set(allowed) <= set(wanted) or not allowed:
        yield Mismatch("cores", placed.placement.core_list, format_cpu_list(allowed), _READ_LOGS)
        return
    covered: set[int] = set()
    for cpus in evidence["affinity"]["threads_allowed"]:
        covered.update(parse_cpu_list(cpus))
    if not covered <= set(wanted):
        yield Mismatch(
            "cores",
            placed.placement.core_list,
            f"a thread on {format_cpu_list(tuple(sorted(covered)))}",
            "a thread moved away",
        )
    elif len(covered) < placed.placement.threads:
        yield Mismatch(
            "cores",
            f"{placed.placement.threads} cores of {placed.placement.core_list}",
            f"all threads on {format_cpu_list(tuple(sorted(covered)))}",
            _READ_LOGS,
        )


def _check_memory_node(placed: PlacedCell, evidence: Evidence) -> Iterator[Mismatch]:
    if placed.placement.task_manager != "numactl":
        return
    wanted = f"bind:{placed.placement.node}"
    policy = evidence["affinity"]["memory_policy"]
    if policy != wanted:
        yield Mismatch(
            "node",
            f"memory policy {wanted}",
            policy or "unobserved",
            "numactl did not bind; launcher.task_manager=taskset does without",
        )


def _check_ipex(placed: PlacedCell, evidence: Evidence) -> Iterator[Mismatch]:
    found, cell = evidence["ipex"], placed.cell
    if cell.ipex == "off":
        if found["imported"]:
            yield Mismatch(
                "ipex", "off", "IPEX imported", "the model's code imports it: it changes operators when imported"
            )
        return
    if not found["imported"]:
        yield Mismatch("ipex", "on", "IPEX not imported", "check the installation")
        return
    graph = evidence["graph"]
    nothing = "IPEX has nothing to optimize in this model: leave the cell out"
    if cell.graph.name == "compile":
        if graph.get("compiler") != "ipex" or not graph["graphs"]:
            yield Mismatch("ipex", "on", f"compiled by {graph.get('compiler')}, {graph.get('graphs')}", nothing)
    elif cell.precision.name == "int8":
        # The recipe replaces no module: its work is in the graph, as partitions of oneDNN Graph.
        if not any("Llga" in kind or kind.startswith("ipex") for kind in graph.get("nodes", {})):
            yield Mismatch("ipex", "on", "no node of IPEX's in the TorchScript graph", nothing)
    elif found["modules_replaced"] < 1:
        yield Mismatch("ipex", "on", "0 modules replaced by ipex.optimize", nothing)


def _check_graph(placed: PlacedCell, evidence: Evidence) -> Iterator[Mismatch]:
    found, wanted = evidence["graph"], placed.cell.graph.name
    regions = evidence["operators"]["compiled_regions"]
    if found["kind"] != wanted:
        yield Mismatch("graph", wanted, found["kind"], "the model's callable must return a plain, eager module")
    elif wanted == "torchscript" and not (found["frozen"] and found["nodes"]):
        yield Mismatch(
            "graph", wanted, "a module that is not frozen, or an empty graph", "torch.jit.freeze did not work"
        )
    elif wanted == "compile":
        if not any(found["graphs"]) or not regions:
            yield Mismatch("graph", wanted, "no compiled region ran", "torch.compile fell back to eager")
        if found["graph_breaks"] and placed.cell.graph.fullgraph:
            yield Mismatch("graph", wanted, f"{found['graph_breaks']} graph breaks", "parts of the model ran as eager")
        if found["cache_hits"]:
            yield Mismatch("graph", "an empty cache", f"{found['cache_hits']} cache hits", "something shared its cache")
    elif wanted == "eager" and regions:
        yield Mismatch("graph", wanted, f"{regions} compiled regions", "the model compiles itself")


_STORED = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

# Share of the arithmetic, by time, that must be done in the precision asked for. What is left: attention, which
# static quantization leaves in fp32.
_IN_PRECISION = {"fp32": 0.99, "bf16": 0.9, "fp16": 0.9, "int8": 0.5}


def computed_in(evidence: Evidence) -> dict[str, dict[str, float]]:
    """Witness (``operators``, ``onednn``) -> dtype -> share of the time of the operations that compute, as far as it
    is known; a witness that doesn't know half of that time is no witness."""
    operators: dict[str, float] = {}
    for row in evidence["operators"]["compute"]:
        operators[row["dtype"]] = operators.get(row["dtype"], 0.0) + row["time_s"]
    found = {}
    for witness, weights in (("operators", operators), ("onednn", evidence["onednn"]["dtypes"])):
        known = {dtype: weight for dtype, weight in weights.items() if dtype}
        if known and sum(known.values()) >= 0.5 * sum(weights.values()):
            found[witness] = {dtype: weight / sum(known.values()) for dtype, weight in known.items()}
    return found


def _check_precision(placed: PlacedCell, evidence: Evidence) -> Iterator[Mismatch]:
    precision = placed.cell.precision
    wanted = _STORED.get(precision.name, "int8")
    if precision.name in _STORED:
        for name in ("inputs", "weights"):
            dtypes = {dtype for dtype in evidence["tensors"][name]["dtypes"] if "float" in dtype}
            if dtypes - {wanted}:
                yield Mismatch(
                    "precision", f"{name} in {wanted}", ", ".join(sorted(dtypes)), "the model converts them itself"
                )
    witnesses = computed_in(evidence)
    if not witnesses and precision.name != "fp32":
        yield Mismatch(
            "precision",
            precision.name,
            "no convolution, linear or matmul that could be seen",
            "it may have run in fp32",
        )
    for witness, shares in witnesses.items():
        if shares.get(wanted, 0.0) < _IN_PRECISION[precision.name]:
            seen = ", ".join(f"{share:.0%} {dtype}" for dtype, share in sorted(shares.items(), key=lambda s: -s[1]))
            yield Mismatch(
                "precision", f"{wanted} arithmetic", f"{seen} (of the time of {witness})", "it did not take everywhere"
            )
    error = evidence["quality"].get("rel_l2")
    least = precision.tolerance.get("least_rel_l2")
    if least is not None and error is not None and error < least:
        yield Mismatch(
            "precision",
            f"a relative error of at least {least:g} ({precision.name})",
            f"{error:.2g}, which is fp32's",
            "it ran in fp32; a model that is exact in it says precision.tolerance.least_rel_l2=null",
        )


def _check_memory_format(placed: PlacedCell, evidence: Evidence) -> Iterator[Mismatch]:
    """Inputs, then the activations on the way: by operators, else by the output, else by oneDNN's convolutions."""
    wanted = placed.cell.memory_format
    if "channels_last" not in placed.cell.model.memory_formats:
        return
    inputs = set(evidence["tensors"]["inputs"]["memory_formats"]) - {"either"}
    if inputs - {wanted}:
        yield Mismatch(
            "memory_format", f"inputs {wanted}", ", ".join(sorted(inputs)), "the model's inputs stayed as is"
        )
    witnesses = (
        evidence["operators"]["image_layouts"],
        evidence["tensors"]["outputs"]["memory_formats"],
        evidence["onednn"]["layouts"],
    )
    for witness in witnesses:
        counts = {layout: n for layout, n in witness.items() if layout in ("channels_first", "channels_last")}
        if counts:
            if counts.get(wanted, 0) < 0.9 * sum(counts.values()):
                seen = ", ".join(f"{n} {layout}" for layout, n in sorted(counts.items()))
                yield Mismatch("memory_format", f"activations {wanted}", seen, "it was lost on the way")
            return
    if not inputs:
        yield Mismatch(
            "memory_format",
            wanted,
            "nothing with four dimensions",
            "a model without images says memory_formats: [channels_first] in its file",
        )


def _check_work(placed: PlacedCell, evidence: Evidence) -> Iterator[Mismatch]:
    """The work of one iteration is the same in every cell: inference mode, the batch asked for."""
    batches = {shape[0] for shape in evidence["tensors"]["inputs"]["shapes"] if shape}
    if placed.cell.batch_size not in batches:
        yield Mismatch(
            "batch_size",
            str(placed.cell.batch_size),
            f"inputs of {', '.join(map(str, sorted(batches))) or 'no batch'}",
            "the model's callable must honour batch_size: throughput is computed from it",
        )
    if evidence["float32_matmul_precision"] != "highest":
        # oneDNN then computes float32 products in bf16, in the reference as well, and names them f32.
        yield Mismatch(
            "precision",
            "float32 products in float32",
            f"torch.set_float32_matmul_precision({evidence['float32_matmul_precision']!r})",
            "the model's code sets it: leave it at 'highest'",
        )
    if evidence["grad_mode"] != "inference_mode":
        yield Mismatch("work", "inference_mode", str(evidence["grad_mode"]), "the worker is of another version")


def _check_serving(placed: PlacedCell, evidence: Evidence) -> Iterator[Mismatch]:
    """Behind a server: the worker that proves itself answered all requests, and was started by the launcher."""
    if not placed.cell.scenario.is_served:
        return
    served = evidence["serving"]
    if LAUNCHER not in served["started_by"]:
        yield Mismatch(
            "launcher",
            LAUNCHER,
            " ".join(served["started_by"])[:200] or "nothing",
            "the server went on without its CPU launcher; see its logs",
        )
    if served["requests"] != placed.cell.scenario.requests:
        yield Mismatch(
            "requests",
            str(placed.cell.scenario.requests),
            f"{served['requests']} in this worker",
            "another worker, or another client, took part",
        )


CHECKS: tuple[Callable[[PlacedCell, Evidence], Iterator[Mismatch]], ...] = (
    _check_allocator,
    _check_openmp,
    _check_threads,
    _check_cores,
    _check_memory_node,
    _check_ipex,
    _check_memory_format,
    _check_precision,
    _check_graph,
    _check_work,
    _check_serving,
)


def check(placed: PlacedCell, evidence: Evidence) -> tuple[Mismatch, ...]:
    """Every mismatch of every axis; empty when the cell ran as asked.

    Evidence that lacks what a check reads is itself a mismatch: what can't be seen is not assumed.
    """
    found: list[Mismatch] = []
    for axis_check in CHECKS:
        try:
            found.extend(axis_check(placed, evidence))
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            axis = axis_check.__name__.removeprefix("_check_")
            found.append(
                Mismatch(axis, "evidence", f"{type(error).__name__}: {error}", "the worker's evidence is incomplete")
            )
    return tuple(found)
