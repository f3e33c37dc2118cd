"""Whether the model ran as the graph that was asked for: operator by operator, traced, compiled, or from a package."""

from __future__ import annotations

import re
from collections.abc import Iterator

from runner.checks.proof import Mismatch, Proof, shown
from runner.launch import PlacedCell
from runner.protocol.cell import Graph
from runner.protocol.evidence import GraphEvidence, GraphKind

_KINDS = {
    "eager": GraphKind.EAGER,
    "torchscript": GraphKind.TORCHSCRIPT,
    "compile": GraphKind.COMPILE,
    "compile_freezing": GraphKind.COMPILE,
    "max_autotune": GraphKind.COMPILE,
    "aot": GraphKind.PACKAGE,
}
# Operators that are products of matrices, for which inductor has templates; convolutions and attention are none.
_PRODUCT = re.compile(r"linear|mm\b|matmul|gemm", re.I)


def check(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """The mismatches of the axis ``graph`` and its settings."""
    asked, graph, operators = placed.cell.graph, proof.evidence.graph, proof.evidence.operators
    regions = operators.compiled_regions if operators else None
    if graph.kind != _KINDS[asked.name]:
        yield Mismatch("graph", asked.name, graph.kind, "the model's callable must return a plain, eager module")
        return
    if graph.compiled_in_window != 0:
        actual = f"{shown(graph.compiled_in_window)} compiled while the iterations were timed"
        cure = "the model changes what its graph depends on: leave it as it is, or raise warmup"
        yield Mismatch("graph", "graphs that are made before the timed loop", actual, cure)
    if graph.kind is GraphKind.TORCHSCRIPT and not (graph.frozen and graph.nodes):
        yield Mismatch(
            "graph", asked.name, "a module that is not frozen, or an empty graph", "torch.jit.freeze did not work"
        )
    elif graph.kind is GraphKind.COMPILE:
        yield from _check_cache(asked, graph, proof.round)
        yield from _check_compiled(asked, graph, regions)
        yield from _check_weights(asked, graph, any(proof.evidence.tensors.weights.dtypes.values()))
        if asked.name == "max_autotune":
            yield from _check_choices(graph, proof)
    elif graph.kind is GraphKind.PACKAGE and not graph.objects:
        yield Mismatch("graph", asked.name, "no shared object of the package in the process", "it was not loaded")
    elif regions:
        yield Mismatch("graph", asked.name, f"{regions} compiled regions", "the model compiles itself")


def _check_compiled(asked: Graph, graph: GraphEvidence, regions: int | None) -> Iterator[Mismatch]:
    if not any(graph.graphs or ()) or not regions:
        yield Mismatch("graph", asked.name, "no compiled region ran", "torch.compile fell back to eager")
    if graph.graph_breaks != 0 and asked.fullgraph:
        yield Mismatch("graph", asked.name, f"{shown(graph.graph_breaks)} graph breaks", "parts of it ran as eager")


def _check_cache(asked: Graph, graph: GraphEvidence, number: int) -> Iterator[Mismatch]:
    """A cold cache is empty at first; a warm one has what the processes of earlier rounds left."""
    if asked.compile_cache == "cold" and (graph.cached_files or graph.cache_hits != 0):
        actual = f"{graph.cached_files} files and {shown(graph.cache_hits)} cache hits"
        yield Mismatch("graph", "an empty cache", actual, "something shared its cache")
    elif asked.compile_cache == "warm" and number > 0 and not graph.cached_files:
        actual = f"no file in it when round {number} began"
        yield Mismatch("graph", "the cache of earlier rounds", actual, "something removed it, or set another folder")


def _check_weights(asked: Graph, graph: GraphEvidence, has_weights: bool) -> Iterator[Mismatch]:
    if has_weights and graph.frozen is not asked.is_frozen:
        wanted = "are constants" if asked.is_frozen else "are no constants"
        actual = {True: "weights among its constants", False: "no weight among its constants"}
        yield Mismatch(
            "graph",
            f"code whose weights {wanted} ({asked.name})",
            shown(None) if graph.frozen is None else actual[graph.frozen],
            "the model's code sets torch._inductor.config.freezing: leave it as it is",
        )


def _check_choices(graph: GraphEvidence, proof: Proof) -> Iterator[Mismatch]:
    """Some product of matrices had its kernel chosen; without products there is nothing to choose."""
    operators = proof.evidence.operators.compute if proof.evidence.operators else []
    products = [operator.name for operator in operators if _PRODUCT.search(operator.name)]
    if graph.autotuned is None or (products and not graph.autotuned):
        actual = f"none chosen by its time, and {products[0]} ran" if products else shown(graph.autotuned)
        cure = "inductor did not autotune, or has one kernel for each product only: choose compile_freezing"
        yield Mismatch("graph", "kernels chosen by their time (max_autotune)", actual, cure)
