"""The numerical guard: what the untouched model computes in fp32, and how far the measured one is from it.

The reference is computed in a forked child that ends before the model under test is built, so that
neither its memory nor its threads are part of what is measured.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from runner.protocol.evidence import Quality
from runner.protocol.stored import FIGURE_LIMIT
from runner.worker import watch


class Reference(NamedTuple):
    """What the model is by itself: fp32, eager, with nothing converted."""

    outputs: list[torch.Tensor]
    """Its outputs, in the order of the model's."""
    image_layouts: dict[str, int]
    """Its operators on images by the memory format of their first tensor."""


def compute_in_child(compute: Callable[[], Reference], file: Path, deadline_s: float) -> bool:
    """Compute in a forked child that saves to ``file``; returns whether it worked. Its traceback goes to stderr.

    The child ends with this process. It reports by itself where it hangs, because a fork takes no other threads along.

    If a signal kills the child, the same signal kills this process: the model causes it, and would do so here too.
    Call it before torch has started threads.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            watch.die_with(parent)
            watch.say_where_it_hangs(deadline_s)
            save(compute(), file)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    _, wait_status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(wait_status):
        os.kill(os.getpid(), os.WTERMSIG(wait_status))
    return wait_status == 0 and file.exists()


def save(reference: Reference, file: Path) -> None:
    """Leave the reference in a file."""
    torch.save(reference._asdict(), file)


def load(file: Path) -> Reference:
    """The reference that `save` left."""
    return Reference(**torch.load(file, weights_only=True))


def compare(outputs: Sequence[torch.Tensor], reference: Sequence[torch.Tensor]) -> Quality:
    """How far ``outputs`` are from ``reference``, over all tensors of a model's output."""
    dtypes = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in outputs})
    shapes, wanted = [list(tensor.shape) for tensor in outputs], [list(tensor.shape) for tensor in reference]
    if shapes != wanted:
        return _incomparable(f"output of shapes {shapes} instead of fp32's {wanted}", dtypes)
    pairs = [
        (a.detach().to(torch.float64).cpu(), b.to(torch.float64))
        for a, b in zip(outputs, reference, strict=True)
        if not b.is_complex()
    ]
    if not pairs:
        return _incomparable("output without a tensor of numbers that could be compared", dtypes)
    a = torch.cat([pair[0].flatten() for pair in pairs])
    b = torch.cat([pair[1].flatten() for pair in pairs])
    finite = bool(torch.isfinite(a).all() and torch.isfinite(b).all())
    classes = next(((x, y) for x, y in pairs if x.dim() in (2, 3) and x.shape[-1] > 1), None)
    norm = float(b.norm())
    return Quality(
        comparable=True,
        why=None,
        finite=finite,
        tensors=len(pairs),
        dtypes=dtypes,
        max_abs_err=_bounded(float((a - b).abs().max())),
        rel_l2=_bounded(float((a - b).norm()) / (norm or 1.0)),
        cosine=_bounded(float(torch.nn.functional.cosine_similarity(a, b, dim=0)) if norm else 1.0),
        top1_match_pct=(
            float((classes[0].argmax(-1) == classes[1].argmax(-1)).double().mean()) * 100 if classes else None
        ),
    )


def _bounded(figure: float) -> float | None:
    """The figure, or None where a result file could not hold it."""
    return figure if abs(figure) <= FIGURE_LIMIT else None


def _incomparable(reason: str, dtypes: list[str]) -> Quality:
    return Quality(
        comparable=False,
        why=reason,
        finite=None,
        tensors=0,
        dtypes=dtypes,
        max_abs_err=None,
        rel_l2=None,
        cosine=None,
        top1_match_pct=None,
    )
