"""Whether the model's code keeps to what was asked: the length of sequences; process and allocator as they started."""

from __future__ import annotations

from collections.abc import Iterator

from runner.checks.proof import Mismatch, Proof
from runner.launch import PlacedCell


def check_sequence_length(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """Some dimension of an input is as long as the sequences, unless the model's callable counts its samples."""
    wanted, tensors = placed.cell.sequence_length, proof.evidence.tensors
    shapes = tensors.inputs.shapes or []
    if wanted is not None and tensors.samples is None and wanted not in {size for shape in shapes for size in shape}:
        sizes = " and ".join("x".join(map(str, shape)) for shape in shapes[:4] if shape)
        cure = "the model's callable must honour sequence_length; where it packs sequences, it returns the number of"
        yield Mismatch(
            "sequence_length", str(wanted), f"inputs of {sizes or 'no dimension'}", f"{cure} samples as a third value"
        )


# Setting of the live jemalloc -> the option that it was started with.
_LIVE = {
    "background_thread": "opt.background_thread",
    "arena.0.dirty_decay_ms": "opt.dirty_decay_ms",
    "arena.0.muzzy_decay_ms": "opt.muzzy_decay_ms",
}


def check_live_settings(_: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """A running program can change jemalloc's settings, and its options still read as they were."""
    settings = proof.evidence.allocator.jemalloc or {}
    for live, option in _LIVE.items():
        value, wanted = settings.get(live), settings.get(option)
        if value is not None and value != wanted:
            yield Mismatch("allocator", f"{live} = {wanted}", str(value), "the model's code sets it while it runs")


def check_process_state(_: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """The priority, the limits and the tools of the process are as it was started with, and it computes by itself."""
    for name, value in proof.evidence.process_state.items():
        yield Mismatch(
            "work", "a process as it was started", f"{name}: {value}", "the model's code does it: leave it out"
        )
