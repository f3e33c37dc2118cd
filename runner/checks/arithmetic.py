"""A right output took the model's arithmetic: an answer that the model remembers is right, and takes no time.

The reference says how many operators compute and how many floating-point operations (FLOP) they are. What ran is seen
by two witnesses: torch's profiler, which knows the shapes of products, and oneDNN's log, which knows those of
convolutions too. Where they can't count all of it, as with packed weights, only its absence is certain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from runner.checks.proof import Mismatch, Proof
from runner.checks.quality import judge
from runner.launch import PlacedCell
from runner.protocol.evidence import GraphKind
from runner.protocol.verdicts import QualityVerdict

# Share of the reference's FLOP below which a part of the arithmetic is missing. Graphs may leave out what is constant
# or computed twice, never half of a model.
_LEAST = 0.5
_REMEMBERS = "the model remembers a part of its answers; it must compute all of each"
# Operators that oneDNN computes and logs: convolutions, and products of weights that are packed for it.
_LOGGED = re.compile(r"mkldnn|convolution|ipex_linear\b|ipex_prepack::linear")


def check(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """The mismatches between an iteration's arithmetic and the reference's; none where the output is wrong."""
    quality = proof.quality
    if quality is None or judge(quality, placed.cell.tolerance) != QualityVerdict.OK:
        return
    operators = proof.evidence.operators
    is_seen = (operators and operators.compute) or _has_generated_code(proof) or proof.kernels.dtypes
    wanted, found, calls = quality.reference_flop, _seen_flop(proof), _seen_calls(proof)
    asked = f"the model's arithmetic ({quality.reference_operators} operators that compute in the fp32 reference)"
    if quality.reference_operators and not is_seen:
        yield Mismatch("work", asked, "none in an iteration", "the model remembers answers; it must compute each")
    elif wanted and found is not None and found < _LEAST * wanted:
        asked = f"the model's arithmetic ({wanted / 1e9:.3g} GFLOP in the fp32 reference)"
        yield Mismatch("work", asked, f"{found / 1e9:.3g} GFLOP in an iteration", _REMEMBERS)
    elif found is None and calls is not None and calls < _LEAST * quality.reference_operators:
        yield Mismatch("work", asked, f"{calls:.0f} in an iteration", _REMEMBERS)


def _has_generated_code(proof: Proof) -> bool:
    """Whether inductor's code ran, which may compute in kernels of its own that have no operator."""
    operators = proof.evidence.operators
    return bool(operators and operators.compiled_regions) or proof.evidence.graph.kind == GraphKind.PACKAGE


def _seen_calls(proof: Proof) -> float | None:
    """The operators that compute in a call of an eager model, which merges none; None for any other."""
    operators = proof.evidence.operators
    if operators is None or _has_generated_code(proof) or proof.evidence.graph.kind != GraphKind.EAGER:
        return None
    return (
        max(float(sum(operator.count for operator in operators.compute)), _logged_calls(proof)) / proof.evidence.calls
    )


def _logged_calls(proof: Proof) -> float:
    """The primitives that compute in an iteration, by oneDNN's log."""
    return sum(calls for kind, (calls, _) in proof.kernels.by_kind.items() if kind in proof.kernels.flop)


def _seen_flop(proof: Proof) -> float | None:
    """The FLOP of an iteration; None where the witnesses can't count all of them."""
    operators, kernels = proof.evidence.operators, proof.kernels
    if operators is None or _has_generated_code(proof) or kernels.unparsed:
        return None
    logged = [operator for operator in operators.compute if _LOGGED.search(operator.name)]
    others = [operator.flop for operator in operators.compute if operator not in logged]
    in_log = list(kernels.flop.values())
    if None in others or None in in_log or _logged_calls(proof) < sum(operator.count for operator in logged):
        return None
    products = {"matmul", "inner_product"}
    of_products = sum(flop or 0.0 for kind, flop in kernels.flop.items() if kind in products)
    of_others = sum(flop or 0.0 for kind, flop in kernels.flop.items() if kind not in products)
    # Products that oneDNN computes are seen by both witnesses.
    return of_others + max(of_products, sum(flop or 0.0 for flop in others))
