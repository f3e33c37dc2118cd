"""How far the outputs of the measured model are from the reference: per tensor and per sample, and the worst decides.

One norm over everything would let large values hide small ones: boxes in pixels hide scores, 63 samples hide one. No
figure has an absolute epsilon, because a norm may be small by initialization or by units.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from runner.protocol.evidence import Quality
from runner.protocol.stored import FIGURE_LIMIT
from runner.worker.call import flat, places
from runner.worker.reference import Reference


@dataclass(frozen=True)
class Observation:
    """One output of the measured model."""

    iteration: str
    """Which iteration it is of (``the last timed iteration``)."""
    input_set: int
    """The number of its input set, counted from 0."""
    output: Any
    """What forward() returned, copied."""


def compare_all(observations: Sequence[Observation], reference: Reference, batch_size: int) -> Quality:
    """How far the worst of these outputs is from the reference's of the same input set; the first one is described."""
    qualities = []
    of_reference: dict[str, Any] = {
        "reference_operators": reference.operators,
        "reference_flop": reference.flop,
        "reference_elements": reference.elements,
    }
    for seen in observations:
        tensors, wanted = flat(seen.output), reference.outputs[seen.input_set]
        quality = compare(tensors, wanted, places(seen.output), batch_size)
        place = f"{seen.iteration}, input set {seen.input_set + 1}"
        if not quality.comparable:
            return replace(quality, why=f"{quality.why}, in {place}", **of_reference)
        qualities.append(replace(quality, worst={name: f"{of} in {place}" for name, of in quality.worst.items()}))
    return replace(_worst(qualities), outputs=len(qualities), **of_reference)


def _worst(qualities: Sequence[Quality]) -> Quality:
    """The first one with each figure from where it is worst."""
    first, worst = qualities[0], {}
    figures: dict[str, float | None] = {}
    for name, sign in (("rel_l2", 1), ("max_abs_err", 1), ("cosine", -1), ("top1_match_pct", -1)):
        with_it = [quality for quality in qualities if name in quality.worst]
        if not with_it:
            continue
        chosen = max(with_it, key=lambda quality: _rank(getattr(quality, name), sign))
        figures[name], worst[name] = getattr(chosen, name), chosen.worst[name]
    not_finite = next((quality for quality in qualities if not quality.finite), None)
    if not_finite:
        worst["finite"] = not_finite.worst["finite"]
    return replace(first, **figures, finite=not_finite is None, worst=worst)  # type: ignore[arg-type]


def _rank(figure: float | None, sign: int) -> float:
    return math.inf if figure is None else sign * figure


def compare(
    outputs: Sequence[torch.Tensor],
    reference: Sequence[torch.Tensor],
    names: Sequence[str] | None = None,
    batch_size: int = 1,
) -> Quality:
    """How far one output is from the reference.

    Args:
        names: what each tensor is called; None numbers them.
        batch_size: tensors whose first dimension is this long are judged per sample as well.
    """
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in outputs})
    shapes, wanted = [list(tensor.shape) for tensor in outputs], [list(tensor.shape) for tensor in reference]
    if shapes != wanted:
        return _incomparable(f"output of shapes {shapes} instead of fp32's {wanted}", dtypes)
    names = names or [f"tensor {number + 1}" for number in range(len(outputs))]
    errors = [
        _compare_tensor(a.detach().cpu(), b, name, batch_size)
        for a, b, name in zip(outputs, reference, names, strict=True)
        if not b.is_complex() and b.numel()
    ]
    if not errors:
        return _incomparable("output without a tensor of numbers that could be compared", dtypes)
    classes = [error for error in errors if error.top1_match_pct is not None][:1]
    relative = max(errors, key=lambda error: error.rel_l2)
    absolute = max(errors, key=lambda error: error.max_abs_err)
    angle = min(errors, key=lambda error: error.cosine)
    not_finite = next((error.name for error in errors if not error.is_finite), None)
    worst = {"rel_l2": relative.place, "max_abs_err": absolute.name, "cosine": angle.name}
    if classes:
        worst["top1_match_pct"] = classes[0].name
    worst |= {"finite": not_finite} if not_finite else {}
    return Quality(
        comparable=True,
        why=None,
        finite=not_finite is None,
        tensors=len(errors),
        outputs=1,
        reference_operators=0,
        reference_flop=None,
        reference_elements=0,
        dtypes=dtypes,
        max_abs_err=_bounded(absolute.max_abs_err),
        rel_l2=_bounded(relative.rel_l2),
        cosine=_bounded(angle.cosine),
        top1_match_pct=classes[0].top1_match_pct if classes else None,
        worst=worst,
    )


@dataclass(frozen=True)
class _Errors:
    """The figures of one tensor."""

    name: str
    place: str
    """The tensor, or the sample of it, that decides rel_l2."""
    is_finite: bool
    max_abs_err: float
    rel_l2: float
    cosine: float
    top1_match_pct: float | None


def _compare_tensor(output: torch.Tensor, reference: torch.Tensor, name: str, batch_size: int) -> _Errors:
    a, b = output.to(torch.float64), reference.to(torch.float64)
    is_classes = b.dim() in (2, 3) and b.shape[-1] > 1
    top1 = float((a.argmax(-1) == b.argmax(-1)).double().mean()) * 100 if is_classes else None
    # A mask's -inf is right where the reference has it, and no part of any figure.
    same_inf = torch.isinf(b) & (a == b)
    a, b = a.masked_fill(same_inf, 0.0), b.masked_fill(same_inf, 0.0)
    is_finite = bool(torch.isfinite(a).all() and torch.isfinite(b).all())
    if not is_finite:
        return _Errors(name, name, False, math.inf, math.inf, -math.inf, top1)
    worst, place = _over(_length(a - b), _length(b)), name
    # Codes (indices, masks) have no length, and one of them may differ where two scores are equal.
    if b.dim() and b.shape[0] == batch_size > 1 and reference.is_floating_point():
        for number, error in enumerate(_per_sample(a - b, b)):
            if error > worst:
                worst, place = error, f"sample {number + 1} of {name}"
    return _Errors(name, place, True, float((a - b).abs().max()), worst, _cosine(a, b), top1)


def _per_sample(error: torch.Tensor, reference: torch.Tensor) -> Iterator[float]:
    """The length of each sample's error over that of the reference.

    A sample shorter than the median one is held to the median: a single score near zero has no relative error that
    would mean anything.
    """
    lengths = [_length(sample) for sample in reference]
    ordered = sorted(lengths)
    usual = ordered[len(ordered) // 2] or _length(reference) / math.sqrt(len(lengths))
    for wrong, length in zip(error, lengths, strict=True):
        yield _over(_length(wrong), max(length, usual))


def _length(values: torch.Tensor) -> float:
    """The L2 norm, for values of any size: squares of very small or large ones don't exist."""
    largest = float(values.abs().max())
    return largest * float((values / largest).norm()) if largest else 0.0


def _over(error: float, length: float) -> float:
    return 0.0 if not error else error / length if length else math.inf


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """The cosine of the angle between two tensors as vectors; 1 if both are zero, 0 if only one is."""
    largest_a, largest_b = float(a.abs().max()), float(b.abs().max())
    if not largest_a or not largest_b:
        return float(largest_a == largest_b)
    a, b = (a / largest_a).flatten(), (b / largest_b).flatten()
    return max(-1.0, min(1.0, float(a @ b) / float(a.norm() * b.norm())))


def _bounded(figure: float) -> float | None:
    """The figure, or None where a result file could not hold it."""
    return figure if abs(figure) <= FIGURE_LIMIT else None


def _incomparable(reason: str, dtypes: list[str]) -> Quality:
    return Quality(
        comparable=False,
        why=reason,
        finite=None,
        tensors=0,
        outputs=0,
        reference_operators=0,
        reference_flop=None,
        reference_elements=0,
        dtypes=dtypes,
        max_abs_err=None,
        rel_l2=None,
        cosine=None,
        top1_match_pct=None,
        worst={},
    )
