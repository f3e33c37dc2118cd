"""What was allowed inside float32 arithmetic, and what oneDNN made of it: its log says so of each primitive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runner.checks.proof import Mismatch, Proof, shown
from runner.launch import PlacedCell

# The values of settings that allow nothing less than float32 inside float32 operations.
_ALL_OF_FLOAT32 = frozenset({"none", "ieee", "False", "FP32"})
_PRODUCTS = "torch.backends.mkldnn.matmul.fp32_precision"


def _highest(settings: Mapping[str, str]) -> tuple[str | None, ...]:
    """What float32_matmul_precision may be where products are wholly in float32.

    torch 2.9 has a setting for each library in its place, and refuses to tell the old one once a new one was set.
    """
    return ("highest", None) if settings.get(_PRODUCTS) in _ALL_OF_FLOAT32 else ("highest",)


# Share of the time of oneDNN's primitives that compute in which it must be allowed.
_ALLOWED = 0.9


def check(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """Float32 is float32 unless the cell allows less; where it does, oneDNN computed with that permission."""
    if placed.cell.fp32_math == "highest":
        yield from _check_highest(placed, proof)
        return
    share = proof.kernels.fpmath.get("bf16", 0.0)
    if not share >= _ALLOWED:
        yield Mismatch(
            "fp32_math",
            "attr-fpmath:bf16 in oneDNN's primitives",
            f"it in {share:.0%} of their time" if proof.kernels.dtypes else "no primitive of oneDNN that computes",
            "another library computed, or this build has no such setting for what the model does",
        )


def _check_highest(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    evidence = proof.evidence
    if evidence.float32_matmul_precision not in _highest(evidence.float32_settings):
        # oneDNN then computes float32 products in bf16, in the reference as well, and names them f32.
        yield Mismatch(
            "precision",
            "float32 products in float32",
            f"torch.set_float32_matmul_precision({shown(evidence.float32_matmul_precision)!r})",
            "the model's code sets it: leave it at 'highest'",
        )
    for name, value in evidence.float32_settings.items():
        if value not in _ALL_OF_FLOAT32:
            yield Mismatch(
                "precision",
                "float32 products in float32",
                f"{name} = {value}",
                "the model's code sets it, for the reference as well: leave it as it is by default",
            )
    if placed.cell.precision.name == "fp32":
        for mode, share in proof.kernels.fpmath.items():
            yield Mismatch(
                "precision",
                "float32 arithmetic",
                f"attr-fpmath:{mode} ({share:.0%} of the time of onednn)",
                "the model's code, or a variable that it sets, allows oneDNN less than float32",
            )
