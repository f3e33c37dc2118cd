"""What kind of graph a module has become, and what its code is made of: read back after the timed loop."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import torch

from runner.protocol.evidence import GraphEvidence, GraphKind
from runner.worker import graphs
from runner.worker.transform import Subject

# What inductor calls a weight that it made a constant of the generated code.
_FROZEN = "_frozen_param"


def observe(subject: Subject) -> GraphEvidence:
    """What the module is now, judged by its type. Call it right after an iteration."""
    making, module = subject.making, subject.graph
    inside = any(isinstance(child, torch.jit.ScriptModule) for child in subject.eager.modules())
    eager = GraphEvidence(
        kind=GraphKind.TORCHSCRIPT_INSIDE if inside else GraphKind.EAGER,
        frozen=None,
        nodes=None,
        compiler=None,
        graphs=None,
        graph_breaks=None,
        cache_hits=None,
        cached_files=graphs.CACHED_FILES,
        compiled_in_window=making.in_window,
        autotuned=None,
        objects=None,
    )
    if isinstance(module, torch.jit.ScriptModule):
        return replace(
            eager,
            kind=GraphKind.TORCHSCRIPT,
            frozen=not list(module.parameters()),
            nodes=_node_kinds(_executed_graph(subject)),
        )
    if type(module).__name__ == "AOTICompiledModel":
        objects = [file for file, _ in graphs.mapped_objects(making.objects)]
        return replace(eager, kind=GraphKind.PACKAGE, objects=objects)
    if type(module).__module__.startswith("torch._dynamo"):
        from torch._dynamo.utils import counters

        return replace(
            eager,
            kind=GraphKind.COMPILE,
            frozen=_has_frozen_weights(),
            compiler=making.compiler,
            graphs=making.graphs,
            graph_breaks=sum(counters["graph_break"].values()),
            cache_hits=counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"],
            autotuned=dict(sorted(Counter(making.autotuned).items())),
        )
    return eager


def _executed_graph(subject: Subject) -> Any:
    """The optimized TorchScript graph that ran last."""
    if subject.in_streams is None:
        return torch._C._last_executed_optimized_graph()
    # Which one ran last is known per thread. The module has one plan, which its first calls make: in streams, where no
    # other thread has called it more than once.
    module: Any = subject.in_streams
    [plan] = module._c.get_debug_state().execution_plans.values()
    return plan.graph


def _has_frozen_weights() -> bool:
    """Whether any code that inductor generated in this process has weights among its constants."""
    cache: Any = sys.modules.get("torch._inductor.codecache")
    modules = cache.PyCodeCache.modules if cache else []
    return any(name.startswith(_FROZEN) for module in modules for name in vars(module))


def _node_kinds(graph: Any) -> dict[str, int]:
    """Operator -> count in a TorchScript graph, with its blocks and fused subgraphs."""
    kinds: dict[str, int] = {}
    waiting = [graph]
    while waiting:
        for node in waiting.pop().nodes():
            kinds[node.kind()] = kinds.get(node.kind(), 0) + 1
            waiting.extend(node.blocks())
            if node.hasAttribute("Subgraph"):
                waiting.append(node.g("Subgraph"))
    return dict(sorted(kinds.items()))
