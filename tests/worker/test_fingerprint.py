"""What a model is, in numbers that another torch build can be held to."""

from __future__ import annotations

import math

import pytest
import torch

from runner.worker import fingerprint


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    [a], [b] = fingerprint.projections([[first]]), fingerprint.projections([[second]])
    return math.dist(a, b) / math.hypot(*a)


@pytest.mark.parametrize("relative", [1e-6, 1e-4, 1e-2, 1.4])
def test_distances_of_projections_are_those_of_the_outputs(relative: float) -> None:
    drawn = torch.Generator().manual_seed(0)
    output, error = torch.randn(8, 1000, generator=drawn), torch.randn(8, 1000, generator=drawn)
    other = output + relative * error * output.norm() / error.norm()
    assert relative / 2 < distance(output, other) < 2 * relative


def test_the_same_output_has_the_same_projections_whatever_its_strides() -> None:
    output = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert distance(output, output.to(memory_format=torch.channels_last)) == 0


@pytest.mark.parametrize("tensor", [torch.tensor([1.0, math.nan]), torch.empty(0), torch.eye(3).to_sparse()])
def test_what_can_not_be_projected_is_left_out(tensor: torch.Tensor) -> None:
    assert fingerprint.projections([[tensor]]) == [[]]


def test_weights_are_the_same_in_any_order_and_others_if_one_differs() -> None:
    first, second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 3)
    tensors = [*first.parameters(), *second.parameters()]
    known = fingerprint.of_tensors(tensors)
    assert fingerprint.of_tensors(reversed(tensors)) == known
    with torch.no_grad():
        second.weight[2, 3] += 1e-6
    assert fingerprint.of_tensors(tensors) != known
    assert fingerprint.of_tensors([tensor.reshape(-1) for tensor in tensors]) != known
