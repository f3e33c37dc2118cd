"""Models whose batch is not the first dimension of their inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.utils import rnn


class Tagger(nn.Module):
    """On (time, batch, features): nn.LSTM's own order; or on packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(40, 16)

    def forward(self, frames: Any) -> torch.Tensor:
        output = self.rnn(frames)[0]
        out: torch.Tensor = output.data if isinstance(output, rnn.PackedSequence) else output
        return out


def time_first(batch_size: int) -> tuple[nn.Module, Any]:
    return Tagger(), (torch.randn(35, batch_size, 40),)


def packed(batch_size: int) -> tuple[nn.Module, Any]:
    sequences = [torch.randn(11 + 2 * number, 40) for number in range(batch_size)]
    return Tagger(), (rnn.pack_sequence(sequences, enforce_sorted=False),)


class Detector(nn.Module):
    """On a list of images of three dimensions each, whose sizes may differ."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        return [{"score": self.conv(image[None]).mean((2, 3))} for image in images]


def images_in_a_list(batch_size: int) -> tuple[nn.Module, Any]:
    return Detector(), ([torch.rand(3, 32, 40 + 2 * number) for number in range(batch_size)],)


class Bag(nn.Module):
    """On all words of all texts, one after the other, and where each text begins but the first."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(1000, 16)
        self.score = nn.Linear(16, 3)

    def forward(self, words: torch.Tensor, begins: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.score(self.embedding(words, torch.cat([torch.zeros(1, dtype=torch.long), begins])))
        return out


def uncounted(batch_size: int) -> tuple[nn.Module, Any]:
    begins = torch.arange(1, batch_size) * 20
    return Bag(), (torch.randint(0, 1000, (20 * batch_size,)), begins)


def counted(batch_size: int) -> tuple[nn.Module, Any, int]:
    return *uncounted(batch_size), batch_size
