"""The trial of a model: what it finds out, and the one sentence for what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from runner.protocol.cell import Model
from runner.protocol.jobfile import JobSpec
from runner.protocol.trial import Trial
from runner.worker import reference
from runner.worker.stages import build
from runner.worker.trial import save_weights, try_model
from tests.conftest import CELL

HEAD = """
import torch
from torch import nn

class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.linear = nn.Linear(8, 8)

    def forward(self, *inputs):
        return self.function(self, *inputs)

"""


def tried(tmp_path: Path, body: str, batch_size: int = 2, **model: object) -> Trial:
    """The trial of the callable ``build`` in these lines."""
    file = tmp_path / f"model_{abs(hash(body))}.py"
    file.write_text(HEAD + body)
    cell = replace(CELL, model=Model("mine", f"{file}:build", model), batch_size=batch_size)
    return try_model(JobSpec("x", 0, cell, 1, "", [[0]]), tmp_path / "reference.pt")


def test_a_good_model_leaves_its_reference_and_has_images_or_not(tmp_path: Path) -> None:
    plain = tried(tmp_path, "def build(batch_size):\n    return nn.Linear(8, 4), torch.randn(batch_size, 8)\n")
    assert plain == Trial(
        None, has_images=False, linear_inputs=[8], weights=reference.load(tmp_path / "reference.pt").weights
    )
    assert [list(outputs[0].shape) for outputs in reference.load(tmp_path / "reference.pt").outputs] == [[2, 4], [2, 4]]
    images = "def build(batch_size):\n    return nn.Conv2d(3, 4, 3), torch.randn(batch_size, 3, 8, 8)\n"
    assert tried(tmp_path, images).has_images


BUILD = "def build(batch_size):\n    "
# Lines of a model -> what is said of it.
WRONG = {
    f"{BUILD}raise OSError('no weights here')\n": "it can't be built: OSError: no weights here (model_",
    "def build(size):\n    ...\n": "it can't be built: TypeError: build() got an unexpected keyword argument",
    f"{BUILD}return nn.Linear(8, 4)\n": "it can't be built: TypeError: a model's callable returns a module",
    f"{BUILD}return nn.Linear(8, 4), torch.randn(batch_size, 9)\n": "it can't be called: RuntimeError: mat1",
    f"{BUILD}return nn.Linear(8, 4), torch.randn(5, 8)\n": "batch_size=2: its inputs are 5x8; honour batch_size",
    f"{BUILD}return nn.Linear(8, 4), torch.randn(5, 8), 7\n": "its callable counts 7 samples",
    f"{BUILD}return Of(lambda self, x: None), torch.randn(batch_size, 8)\n": "holds no tensor",
    f"{BUILD}return Of(lambda self, x: x / 0 * 0), torch.randn(batch_size, 8)\n": "holds nan in fp32",
    f"{BUILD}return Of(lambda self, x: x + torch.rand(8)), torch.randn(batch_size, 8)\n": (
        "two calls with the same inputs give different outputs"
    ),
    f"g = torch.Generator()\n{BUILD}return nn.Identity(), torch.randn(batch_size, 8, generator=g)\n": (
        "it is another one each time it is built, with the same seed"
    ),
}


@pytest.mark.parametrize(("body", "sentence"), WRONG.items(), ids=range(len(WRONG)))
def test_what_is_wrong_with_a_model_is_one_sentence(tmp_path: Path, body: str, sentence: str) -> None:
    problem = tried(tmp_path, body).problem
    assert problem is not None
    assert sentence in problem


def test_a_model_of_transformers_tells_how_long_its_sequences_are_and_that_its_weights_are_random(
    tmp_path: Path,
) -> None:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = Model("hf:bert", "runner.worker.transformers_models.build", {"architecture": "bert", **small})
    spec = JobSpec("x", 0, replace(CELL, model=model), 1, "", [[0]])
    trial = try_model(spec, tmp_path / "reference.pt")
    assert (trial.problem, trial.has_images, trial.sequence_length) == (None, False, 128)
    assert "random weights" in trial.notes[0]


def test_weights_that_are_handed_over_take_the_place_of_a_builds_own(tmp_path: Path) -> None:
    file, kept = tmp_path / "model.py", tmp_path / "weights.pt"
    body = "def build(batch_size, width=4):\n    return nn.Linear(8, width), torch.randn(batch_size, 8)\n"
    file.write_text(HEAD + body)
    cell = replace(CELL, model=Model("mine", f"{file}:build"), batch_size=2)
    spec = JobSpec("x", 0, cell, 1, "", [[0]], weights=str(kept))
    own, _ = build(spec, 7)  # nothing is in the file yet
    assert save_weights(replace(spec, cell=replace(cell, seed=1))) == Trial()
    loaded, _ = build(spec, 7)
    assert isinstance(own, torch.nn.Linear)
    assert isinstance(loaded, torch.nn.Linear)
    assert not torch.equal(own.weight, loaded.weight)
    assert torch.equal(loaded.weight, build(replace(spec, weights=""), 1)[0].get_parameter("weight"))
    # Of another shape, they are left alone: the evidence says that the models differ.
    wider = replace(spec, cell=replace(cell, model=Model("mine", f"{file}:build", {"width": 5})))
    assert torch.equal(
        build(wider, 7)[0].get_parameter("weight"), build(replace(wider, weights=""), 7)[0].get_parameter("weight")
    )
