"""What a model's callable may return as inputs, and how its samples are counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils import rnn

from runner.worker.call import Call

SEQUENCES = rnn.pack_sequence([torch.zeros(5, 4), torch.ones(3, 4), torch.ones(1, 4)])
IMAGE = torch.zeros(3, 8, 8)


@pytest.mark.parametrize(
    ("inputs", "lengths"),
    [
        (torch.zeros(4, 3), []),
        ((torch.zeros(4, 3), torch.zeros(4)), []),
        ([torch.zeros(4, 3), torch.zeros(4)], []),  # positional arguments, as a tuple would be
        (([IMAGE, IMAGE],), [2]),
        (([{"image": IMAGE}, {"image": IMAGE}], [IMAGE]), [2, 1]),
        ({"images": [IMAGE] * 3, "sizes": [1, 2]}, [3]),
        ((SEQUENCES,), [3]),
        ({"frames": SEQUENCES}, [3]),
    ],
)
def test_lists_of_tensors_and_packed_sequences_have_a_length(inputs: Any, lengths: list[int]) -> None:
    assert Call.of(inputs).lengths() == lengths


def test_the_tensors_of_packed_sequences_are_found_and_changed() -> None:
    changed = Call.of((SEQUENCES,)).map(lambda t: t.to(torch.bfloat16) if t.is_floating_point() else t)
    [packed] = changed.args
    assert isinstance(packed, rnn.PackedSequence)
    assert packed.data.dtype == torch.bfloat16
    assert packed.batch_sizes.tolist() == [3, 2, 2, 1, 1]


def test_the_number_of_samples_stays_with_the_call() -> None:
    call = Call.of(torch.zeros(20), 4)
    assert call.map(lambda tensor: tensor + 1).samples == call.samples == 4


@pytest.mark.parametrize("samples", ["4", 0, -1, 2.5, torch.tensor(4)])
def test_a_number_of_samples_that_is_none_is_refused(samples: Any) -> None:
    with pytest.raises(TypeError, match="is the number of samples in its inputs"):
        Call.of(torch.zeros(20), samples)
