"""Whether a model ran in the memory format that was asked for: its inputs, its weights, its activations.

A model may permute by itself, as ConvNeXt and Swin do around their norms. That is its own work in every cell, and no
conversion of ours was lost by it. So activations are held to the layouts of the fp32 eager reference, where nothing was
converted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from runner.checks.proof import Mismatch, Proof
from runner.launch import PlacedCell
from runner.protocol.evidence import CallEvidence

# Share of the operators on images that must have the layout asked for.
_MOST = 0.9
# Of a model that permutes by itself, a graph merges other operators than eager does: its share may halve.
_OF_ITS_OWN = 0.5
_FORMATS = ("channels_first", "channels_last")


def _share(layouts: Mapping[str, int], wanted: str) -> float | None:
    """The share of a layout among those of known format; None if there is none of these."""
    known = sum(layouts.get(layout, 0) for layout in _FORMATS)
    return layouts.get(wanted, 0) / known if known else None


def _least_share(own: float, wanted: str) -> float:
    """The least share of activations in the format asked for.

    Args:
        own: the share that the reference, in which nothing is converted, has of channels first.
    """
    return _OF_ITS_OWN * own if wanted == "channels_first" and own < _MOST else _MOST


def _check_inputs_and_weights(tensors: CallEvidence, wanted: str) -> Iterator[Mismatch]:
    inputs = set(tensors.inputs.memory_formats) - {"either", wanted}
    if inputs:
        yield Mismatch(
            "memory_format", f"inputs {wanted}", ", ".join(sorted(inputs)), "the model's inputs stayed as is"
        )
    weights = set(tensors.weights.memory_formats) & set(_FORMATS) - {wanted}
    if weights:
        yield Mismatch("memory_format", f"weights {wanted}", ", ".join(weights), "the model's code converts them")


def check(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """Inputs and weights, then the activations: by operators, else by the output, else by oneDNN's convolutions."""
    wanted, evidence = placed.cell.memory_format, proof.evidence
    if not (evidence.reference_layouts or evidence.tensors.inputs.memory_formats):
        if wanted == "channels_last":
            yield Mismatch("memory_format", wanted, "nothing with four dimensions", "the model works on no images")
        return
    yield from _check_inputs_and_weights(evidence.tensors, wanted)
    own = _share(evidence.reference_layouts, "channels_first")
    least = _least_share(1.0 if own is None else own, wanted)
    layouts_seen = evidence.operators.image_layouts if evidence.operators else {}
    witnesses = (layouts_seen, evidence.tensors.outputs.memory_formats, proof.kernels.layouts)
    for witness in witnesses:
        share = _share(witness, wanted)
        if share is not None:
            # What is true of a permuting model's operators need not be of its output alone.
            if share < least and (least == _MOST or witness is layouts_seen):
                layouts = ", ".join(f"{witness[layout]} {layout}" for layout in _FORMATS if witness.get(layout))
                yield Mismatch("memory_format", f"activations {wanted}", layouts, "it was lost on the way")
            return
    if wanted == "channels_last" and not set(evidence.tensors.inputs.memory_formats) - {"either"}:
        yield Mismatch("memory_format", wanted, "nothing that has it", "its images have one channel or one pixel")
