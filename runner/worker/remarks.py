"""What a reader must know of how a model behaves, and no check fails for: sentences for WorkerResult.notes."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from runner.protocol.resultfile import Window
from runner.worker import distance
from runner.worker.call import Call
from runner.worker.reference import Reference

# Memory that grows by less than this in the window, or by this share of what there was, says nothing: allocators keep
# some for later.
_GROWTH_BYTES, _GROWTH_SHARE = 64e6, 0.1
# Sums in another order differ by less.
_RANDOM_ABOVE = 1e-5


def _digest(tensor: torch.Tensor) -> int:
    """A checksum of the values; 0 for a tensor whose values have no order in memory (sparse, quantized)."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        return 0
    return zlib.crc32(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)


@dataclass(frozen=True)
class InputsBefore:
    """The inputs before the first iteration, as checksums."""

    digests: Sequence[Sequence[int]]

    @classmethod
    def of(cls, calls: Sequence[Call]) -> InputsBefore:
        """Take the checksums of every input set."""
        return cls([[_digest(tensor) for tensor in call.tensors()] for call in calls])

    def changed(self, calls: Sequence[Call]) -> list[str]:
        """A note if the model has changed one of its inputs meanwhile."""
        after = InputsBefore.of(calls).digests
        tensors = sorted(
            {number for old, new in zip(self.digests, after, strict=True) for number in _differing(old, new)}
        )
        if not tensors:
            return []
        which = ", ".join(str(number + 1) for number in tensors)
        return [
            f"the model changes its inputs in place (tensor {which} of them): an iteration begins with what an earlier "
            "one left of its input set"
        ]


def _differing(old: Sequence[int], new: Sequence[int]) -> list[int]:
    return [number for number, (before, after) in enumerate(zip(old, new, strict=True)) if before != after]


def growing_memory(window: Window | None, iterations: int) -> list[str]:
    """A note if the process kept more and more memory over the window."""
    growth, peak = (window.rss_growth_bytes, window.rss_peak_bytes) if window else (None, None)
    if not iterations or growth is None or growth < max(_GROWTH_BYTES, _GROWTH_SHARE * ((peak or 0) - growth)):
        return []
    return [
        f"memory grows: +{growth / iterations / 1e6:.3g} MB per iteration, {growth / 1e6:.0f} MB in the timed loop; "
        "the model keeps what it allocates"
    ]


def randomness(reference: Reference) -> list[str]:
    """A note if the untouched model gave two outputs for one input."""
    if not reference.repeated:
        return []
    quality = distance.compare(reference.repeated, reference.outputs[0])
    if quality.rel_l2 is not None and quality.rel_l2 <= _RANDOM_ABOVE:
        return []
    by = quality.why or (
        "by more than a number can say" if quality.rel_l2 is None else f"by {quality.rel_l2:.2g} (relative L2 norm)"
    )
    return [
        f"the model is random or remembers earlier calls: two runs of the untouched fp32 model on one input differ {by}"
        "; turn off dropout and noise, or seed them in forward()"
    ]
