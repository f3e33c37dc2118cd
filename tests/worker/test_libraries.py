"""Models of torchvision and transformers by their names: their inputs follow from their own configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from runner.worker import factory, torchvision_models, transformers_models
from runner.worker.call import Call

# Fields that make any model of transformers small.
SMALL: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
WHISPER: dict[str, Any] = {
    "d_model": 12, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 60, "max_source_positions": 20,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
T5: dict[str, Any] = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 100}


def shapes(returned: tuple[Any, Any]) -> list[list[int]]:
    """The shapes of the inputs, which the model has taken once."""
    module, call = returned[0].eval(), Call.of(returned[1])
    with torch.inference_mode():
        call(module)
    return [list(tensor.shape) for tensor in call.tensors()]


def test_images_have_the_size_that_the_weights_of_the_model_were_trained_with() -> None:
    assert shapes(torchvision_models.build(2, "squeezenet1_1")) == [[2, 3, 224, 224]]
    preset, _ = torchvision_models._preset("inception_v3")
    assert torchvision_models._size(preset) == (299, 299)


def test_a_detector_takes_a_list_of_images_of_its_own_size() -> None:
    module, inputs = torchvision_models.build(2, "ssdlite320_mobilenet_v3_large")
    assert shapes((module, inputs)) == [[3, 320, 320], [3, 320, 320]]
    assert Call.of(inputs).lengths() == [2]


def test_a_model_of_videos_takes_frames() -> None:
    assert shapes(torchvision_models.build(1, "mc3_18", image_size=32)) == [[1, 3, 16, 32, 32]]


def test_an_unknown_architecture_is_named_with_one_that_is_like_it() -> None:
    with pytest.raises(ValueError, match="torchvision has no model resnet500; did you mean resnet50"):
        torchvision_models.build(1, "resnet500")


@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("bert", SMALL, [[2, 128], [2, 128]]),
        ("bert", {**SMALL, "max_position_embeddings": 40}, [[2, 40], [2, 40]]),
        ("vit", {**SMALL, "image_size": 64}, [[2, 3, 64, 64]]),
        ("whisper", WHISPER, [[2, 80, 40], [2, 4]]),
        ("t5", T5, [[2, 128], [2, 128], [2, 128]]),
        ("llama", {**SMALL, "num_key_value_heads": 1, "vocab_size": 100}, [[2, 128], [2, 128]]),
    ],
)
def test_the_inputs_follow_from_the_configuration(name: str, fields: dict[str, Any], expected: list[list[int]]) -> None:
    assert shapes(transformers_models.build(2, name, **fields)) == expected


def test_a_sequence_has_the_length_that_was_asked_for_and_no_more_than_the_model_takes() -> None:
    assert shapes(transformers_models.build(1, "bert", sequence_length=7, **SMALL)) == [[1, 7], [1, 7]]
    with pytest.raises(ValueError, match="takes at most 512 tokens"):
        transformers_models.build(1, "bert", sequence_length=513, **SMALL)
    with pytest.raises(ValueError, match="has no sequences of tokens; leave it out"):
        transformers_models.build(1, "vit", sequence_length=7, **SMALL)


def test_the_default_length_is_told_for_models_of_text_only() -> None:
    assert transformers_models.sequence_length("bert") == 128
    assert transformers_models.sequence_length("openai/clip-vit-base-patch32") == 77
    assert transformers_models.sequence_length("vit") is None


def test_a_folder_gives_its_own_weights_and_a_name_says_that_they_are_random(tmp_path: Path) -> None:
    module, _ = transformers_models.build(1, "bert", **SMALL)
    module.save_pretrained(tmp_path)  # type: ignore[operator]
    again, _ = transformers_models.build(1, folder=str(tmp_path))
    first, second = (next(iter(one.state_dict().values())) for one in (module, again))
    assert torch.equal(first, second)
    assert transformers_models.note(folder=str(tmp_path)) is None
    said = transformers_models.note("distilbert-base-uncased")
    assert said is not None
    assert "random weights; for its own: hf download distilbert-base-uncased" in said


def test_a_shape_that_is_only_guessed_is_said_to_be() -> None:
    said = transformers_models.note("acme/bert-large-legal")
    assert said is not None
    assert "the shape of transformers' default BertConfig, which may be another size" in said
    with pytest.raises(ValueError, match="its shape is not known"):
        transformers_models.note("acme/nothing-that-exists")


def test_a_model_larger_than_memory_is_refused_before_it_is_made() -> None:
    with pytest.raises(ValueError, match="billion parameters"):
        transformers_models.build(1, "llama", vocab_size=10**9, num_hidden_layers=1)


def test_a_file_is_run_once_imports_what_is_beside_it_and_hides_no_module_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "beside_it.py").write_text("value = 3\n")
    (tmp_path / "random.py").write_text(
        "import beside_it\nclass Model:\n    @staticmethod\n    def build(): return beside_it.value\n"
    )
    build = factory.resolve(f"{tmp_path}/random.py:Model.build")
    assert build() == 3
    assert factory.resolve(f"{tmp_path}/random.py:Model.build") is build
    import random

    assert hasattr(random, "Random")
