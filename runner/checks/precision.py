"""Whether a cell computed in the precision that was asked for: by its tensors, operators, kernels, layers and error.

None of these tells all. An operator may have another dtype than its kernel, and then the error is fp32's; int8 that was
computed in float32 has int8's error, and then only the kernels tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from runner.checks.proof import Mismatch, Proof, shown
from runner.launch import PlacedCell
from runner.protocol.evidence import ComputeOperator, GraphKind, Quality, TensorsEvidence
from runner.protocol.verdicts import UNOBSERVED

# The dtype of inputs and of weights that no recipe replaces; a precision that is not named here says nothing of it.
_STORED = {"fp32": "float32", "bf16": "bfloat16", "bf16_autocast": "float32", "fp16": "float16"}
# The dtype of the arithmetic, and the share of it, by time, that must have it: nearly all, or all but attention, which
# static quantization leaves in fp32. Where linears alone compute in it, their calls are counted instead.
_COMPUTED = {
    "fp32": ("float32", 0.99),
    "bf16": ("bfloat16", 0.9),
    "bf16_autocast": ("bfloat16", 0.9),
    "fp16": ("float16", 0.9),
    "int8": ("int8", 0.5),
    "int8_weight": ("bfloat16", 0.9),
    "int4_weight": ("bfloat16", 0.9),
}


def check(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """Everything that shows another precision."""
    yield from _check_tensors(placed, proof)
    yield from _check_layers(placed, proof)
    yield from _check_arithmetic(placed, proof)
    yield from _check_error(placed, proof.quality)


def _check_tensors(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    name, tensors = placed.cell.precision.name, proof.evidence.tensors
    wanted = _STORED.get(name)
    if wanted is None:
        return
    yield from _check_dtypes("inputs", tensors.inputs, wanted)
    # IPEX can't cast the float32 weights that it packs, so that under autocast it packs them in bfloat16.
    if not (name == "bf16_autocast" and placed.cell.uses_ipex):
        yield from _check_dtypes("weights", tensors.weights, wanted)


def _check_dtypes(name: str, tensors: TensorsEvidence, wanted: str) -> Iterator[Mismatch]:
    dtypes = {dtype for dtype in tensors.dtypes if "float" in dtype}
    if dtypes - {wanted}:
        yield Mismatch("precision", f"{name} in {wanted}", ", ".join(sorted(dtypes)), "the model converts them itself")


def _compute_operators(proof: Proof) -> list[ComputeOperator]:
    return proof.evidence.operators.compute if proof.evidence.operators else []


def _computed_in(proof: Proof) -> dict[str, dict[str, float]]:
    """Witness (``operators``, ``onednn``) -> dtype -> its share of the time of the operations that compute.

    A witness that doesn't know the dtype of half of that time is left out.
    """
    operators = [(operator.dtype, operator.time_s) for operator in _compute_operators(proof)]
    kernels = [(dtype or None, share) for dtype, share in proof.kernels.dtypes.items()]
    shares = {}
    for witness, times in (("operators", operators), ("onednn", kernels)):
        by_dtype: dict[str, float] = {}
        for dtype, time in times:
            if dtype is not None:
                by_dtype[dtype] = by_dtype.get(dtype, 0.0) + time
        total = sum(by_dtype.values())
        if total > 0 and total >= 0.5 * sum(time for _, time in times):
            shares[witness] = {dtype: time / total for dtype, time in by_dtype.items()}
    return shares


# Calls of such kernels per quantized linear: graphs merge linears with the same input, as those of attention, and a
# model need not call all that it has.
_CALLS = 0.5
# Kernels that read weights of integers as they are.
_READS_INTEGERS = re.compile(r"_weight_int[48]pack_mm|woq_linear")


def _check_layers(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """What the recipe put into the model, and that int8 kernels computed it."""
    name, done = placed.cell.precision.name, proof.evidence.precision
    if not placed.cell.precision.is_quantized or (name == "int8" and placed.cell.uses_ipex):
        return  # the work of IPEX's static recipe is in the graph: see the check of ipex
    number, asked = _quantized(placed, proof), f"layers quantized for {name} ({done.layers} in the model)"
    if not number:
        cure = "the recipe found nothing that it quantizes, or inserted no observer; the model would run in fp32"
        yield Mismatch("precision", asked, f"none by {shown(done.recipe)}", cure)
    elif placed.cell.precision.is_weight_only:
        if not _reads_integers(placed, proof) and proof.evidence.graph.kind is not GraphKind.EAGER:
            actual = "no such kernel" if proof.evidence.operators else UNOBSERVED
            cure = "the graph has made bfloat16 constants of the weights, and computes with those"
            yield Mismatch("precision", f"kernels that read the weights of {name}", actual, cure)
    elif name == "int8_dynamic":
        calls = sum(operator.count for operator in _compute_operators(proof) if operator.dtype == "int8")
        if calls < _CALLS * number * proof.evidence.calls:
            actual = f"{calls} calls of int8 kernels" if proof.evidence.operators else UNOBSERVED
            cure = "the graph computes them in floating point: see operators in evidence.json"
            yield Mismatch("precision", f"{number} quantized layers that int8 kernels compute", actual, cure)


def _quantized(placed: PlacedCell, proof: Proof) -> int:
    """The number of quantized layers that are as the precision asks: dynamic or not, with weights of so many bits."""
    precision, counts = placed.cell.precision, proof.evidence.precision.quantized
    number = 0
    for name, count in counts.items():
        is_alike = ("dynamic" in name.lower()) == (precision.name == "int8_dynamic")
        if precision.is_weight_only:
            bits = re.search(r"int[48]", name.lower())
            is_alike &= bits is not None and precision.name.startswith(bits[0])
        number += count * is_alike
    return number


def _reads_integers(placed: PlacedCell, proof: Proof) -> bool:
    """Whether kernels read weights of integers as they are, in at least half of the layers that have them."""
    calls = sum(op.count for op in _compute_operators(proof) if _READS_INTEGERS.search(op.name))
    return calls >= _CALLS * max(1, _quantized(placed, proof)) * proof.evidence.calls


def notes(placed: PlacedCell, proof: Proof) -> Iterator[str]:
    """What the precision's recipe left undone, for a reader of the cell: one sentence each."""
    done, operators = proof.evidence.precision, proof.evidence.operators
    if not placed.cell.precision.is_quantized or not done.quantized:
        return
    if placed.cell.precision.is_weight_only and operators and not _reads_integers(placed, proof):
        yield (
            f"the weights are dequantized in every iteration ({done.recipe}): no kernel of {proof.evidence.graph.kind} "
            "reads them as integers, so that they save memory and cost time"
        )
    left = done.layers - _quantized(placed, proof)
    if left > 0 and placed.cell.precision.name != "int8":
        yield f"{left} of {done.layers} linear layers were not quantized ({done.recipe})"


def _check_arithmetic(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    name = placed.cell.precision.name
    if name not in _COMPUTED:
        return
    wanted, least = _COMPUTED[name]
    witnesses = _computed_in(proof)
    if not witnesses and name != "fp32":
        actual = "no convolution, linear or matmul that could be seen"
        yield Mismatch("precision", name, actual, "it may have run in fp32")
    for witness, shares in witnesses.items():
        if not shares.get(wanted, 0.0) >= least:
            dtypes = ", ".join(f"{share:.0%} {dtype}" for dtype, share in sorted(shares.items(), key=lambda s: -s[1]))
            yield Mismatch(
                "precision", f"{wanted} arithmetic", f"{dtypes} (of the time of {witness})", "parts of it ran otherwise"
            )


def _check_error(placed: PlacedCell, quality: Quality | None) -> Iterator[Mismatch]:
    """A lower precision leaves an error. An output that can't be compared is for runner.checks.quality to judge."""
    precision = placed.cell.precision
    least = placed.cell.tolerance.get("least_rel_l2")
    if quality is None:
        yield Mismatch("precision", "a comparison with fp32's output", UNOBSERVED, "the worker is of another version")
    elif least is not None and quality.finite and (quality.rel_l2 is None or quality.rel_l2 < least):
        yield Mismatch(
            "precision",
            f"a relative error of at least {least:g} ({precision.name})",
            UNOBSERVED if quality.rel_l2 is None else f"{quality.rel_l2:.2g}, which is fp32's",
            "it ran in fp32; a model that is exact in it says precision.tolerance.least_rel_l2=null",
        )
