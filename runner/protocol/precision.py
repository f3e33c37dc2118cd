"""The precision of a cell, with how far results may be from those of float32; apart from the cell's other axes.

Standard library only, as the cell itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runner.protocol.declaration import setting

# How many inputs may share the scale of an int4 weight, in the order in which recipes try them.
GROUPS = (128, 64, 32)
# The tolerance of bfloat16, as conf/precision/bf16.yaml has it.
OF_BF16 = {"least_rel_l2": 1.0e-4, "rel_l2": 0.05, "cosine": 0.998}


@dataclass(frozen=True)
class Precision:
    """The precision of the arithmetic, and how far its results may be from those of fp32."""

    name: str
    tolerance: Mapping[str, float] = setting(
        "The largest error against the fp32 eager reference, by measure; least_rel_l2 is the error below which the "
        "precision can't have run.",
        {},
        keys=("rel_l2", "cosine", "top1_match_pct", "max_abs_err", "least_rel_l2"),
    )
    calibration_batches: int = setting(
        "For int8: how many batches the observers see before the model is converted.",
        1,
        least=1,
        unit="batches for int8 to see values in",
    )

    @property
    def is_quantized(self) -> bool:
        """Whether a recipe makes integers of weights or activations."""
        return self.name.startswith("int")

    @property
    def is_weight_only(self) -> bool:
        """Whether linears have weights of integers, and all else is bfloat16."""
        return self.name.endswith("_weight")


def widened(tolerance: Mapping[str, float]) -> dict[str, float]:
    """A tolerance with each of its limits at least as wide as that of bfloat16."""
    wider = {"rel_l2": max, "max_abs_err": max, "cosine": min, "top1_match_pct": min}
    limits = {name: wider[name](limit, OF_BF16.get(name, limit)) for name, limit in tolerance.items() if name in wider}
    return {**tolerance, **limits, "least_rel_l2": OF_BF16["least_rel_l2"]}
