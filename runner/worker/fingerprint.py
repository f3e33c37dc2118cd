"""What a model is, in a few numbers that another torch build can be held to: weights, inputs and fp32 outputs.

The same seed need not make the same model in every build: transformers 5 draws the weights of a ViT in another order
than transformers 4. Tensors that two builds compute, inputs among them, are never bitwise the same, so each is kept as
the lengths of a few projections, whose distances are those of the tensors (Johnson and Lindenstrauss, 1984).
"""

from __future__ import annotations

import ctypes
import hashlib
import math
from collections.abc import Iterable, Sequence

import torch

# Directions on which each tensor is projected; tensors and elements beyond these are not looked at.
_DIRECTIONS, _MOST_TENSORS, _MOST_ELEMENTS = 16, 32, 1 << 20
# Of a longer tensor the first and the last bytes are hashed.
_HASHED_BYTES = 1 << 20


def of_tensors(tensors: Iterable[torch.Tensor]) -> str:
    """The hash of some tensors, whatever their order: packages rename and sort parameters from version to version."""
    return hashlib.sha256("".join(sorted(map(_of_tensor, tensors))).encode()).hexdigest()[:12]


def _of_tensor(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)}".encode())
    if tensor.layout == torch.strided and not tensor.is_quantized:
        dense = tensor.detach().contiguous()
        size = dense.numel() * dense.element_size()
        if size:
            # Not by numpy, which a torch build need not have.
            content = memoryview((ctypes.c_char * size).from_address(dense.data_ptr()))
            digest.update(content[:_HASHED_BYTES])
            digest.update(content[-_HASHED_BYTES:])
    return digest.hexdigest()


def projections(sets: Sequence[Sequence[torch.Tensor]]) -> list[list[float]]:
    """The projections of each tensor of some sets; empty for one that has values that are not finite, or none."""
    tensors = [tensor for one in sets for tensor in one]
    return [_projected(tensor) for tensor in tensors[:_MOST_TENSORS]]


def _projected(tensor: torch.Tensor) -> list[float]:
    if tensor.layout != torch.strided or tensor.is_quantized or not tensor.numel():
        return []
    values = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    values = values.detach().reshape(-1)
    values = values[:: math.ceil(values.numel() / _MOST_ELEMENTS)].to(torch.float64)
    if not bool(torch.isfinite(values).all()):
        return []
    position = torch.arange(1, values.numel() + 1, dtype=torch.float64)
    # Cosines of multiples of square roots: the same directions in every build, without a generator of random numbers.
    roots = [math.sqrt(prime) for prime in _primes(_DIRECTIONS)]
    return [float((values * torch.cos(2 * math.pi * torch.frac(position * root))).sum()) for root in roots]


def _primes(count: int) -> list[int]:
    primes: list[int] = []
    number = 2
    while len(primes) < count:
        if all(number % prime for prime in primes):
            primes.append(number)
        number += 1
    return primes
