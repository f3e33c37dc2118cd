"""Any model of transformers: from a folder that save_pretrained() wrote, or by its name with random weights.

Its inputs follow from its own configuration. Nothing is downloaded: what the cache of the Hugging Face hub holds comes
as a folder, and of other models only the shape is known, from the table below or from transformers' defaults.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from runner.protocol import kernel
from runner.worker.imports import import_transformers
from runner.worker.models import images, random_batch_norm

# Tokens per sequence where nothing else is asked for, and where the model takes as many.
TOKENS = 128
# Tokens that a decoder of speech begins with: language, task and the like.
_PROMPT = 4
# Samples of sound per second, and seconds of it, for models that take a waveform.
_SAMPLING_RATE, _SECONDS = 16_000, 1
_IMAGE_SIZE = 224

# Name on the hub -> (model_type, what differs from the default of transformers' configuration of that type).
_SHAPES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "bert-base-uncased": ("bert", {}),
    "bert-base-cased": ("bert", {"vocab_size": 28996}),
    "bert-large-uncased": (
        "bert", {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    ),
    "google/bert_uncased_L-2_H-128_A-2": (
        "bert", {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512},
    ),
    "sentence-transformers/all-MiniLM-L6-v2": (
        "bert", {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    ),
    "distilbert-base-uncased": ("distilbert", {}),
    "roberta-base": ("roberta", {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}),
    "albert-base-v2": (
        "albert", {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072},
    ),
    "google/electra-small-discriminator": ("electra", {}),
    "gpt2": ("gpt2", {}),
    "distilgpt2": ("gpt2", {"n_layer": 6}),
    "t5-small": ("t5", {}),
    "t5-base": ("t5", {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}),
    "facebook/bart-base": (
        "bart", {
            "d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 12,
            "decoder_attention_heads": 12, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072,
        },
    ),
    "facebook/bart-large": ("bart", {}),
    "HuggingFaceTB/SmolLM2-135M": (
        "llama", {
            "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
            "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
        },
    ),
    "Qwen/Qwen2.5-0.5B": (
        "qwen2", {
            "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
            "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
        },
    ),
    "google/vit-base-patch16-224": ("vit", {"num_labels": 1000}),
    "microsoft/swin-tiny-patch4-window7-224": ("swin", {"num_labels": 1000}),
    "facebook/convnext-tiny-224": ("convnext", {"num_labels": 1000}),
    "microsoft/resnet-50": ("resnet", {"num_labels": 1000}),
    "openai/clip-vit-base-patch32": ("clip", {}),
    "openai/whisper-tiny": ("whisper", {}),
    "openai/whisper-base": (
        "whisper", {
            "d_model": 512, "encoder_layers": 6, "decoder_layers": 6, "encoder_attention_heads": 8,
            "decoder_attention_heads": 8, "encoder_ffn_dim": 2048, "decoder_ffn_dim": 2048,
        },
    ),
    "facebook/wav2vec2-base": ("wav2vec2", {}),
}  # fmt: skip

# Where a configuration does not say which class its weights are of: the task of the first of these that has one.
_TASKS = (
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
    "MODEL_FOR_OBJECT_DETECTION_MAPPING",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING",
    "MODEL_FOR_CTC_MAPPING",
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "MODEL_FOR_MASKED_LM_MAPPING",
    "MODEL_FOR_CAUSAL_LM_MAPPING",
    "MODEL_MAPPING",
)


def build(
    batch_size: int,
    architecture: str = "",
    folder: str = "",
    sequence_length: int | None = None,
    **overrides: Any,
) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Make a model of transformers and its keyword arguments.

    Text is (batch_size, sequence_length) token ids of which none is masked, pictures are (batch_size, channels, H, W),
    sound is (batch_size, features, frames) or (batch_size, samples): what the model's configuration says.

    Args:
        architecture: a name on the hub, or a model_type of transformers; its weights are random.
        folder: a folder with config.json and, if it has any, the weights, as save_pretrained() writes it.
        overrides: fields of the configuration, like num_hidden_layers.

    Raises:
        ValueError: the name is not known, the model is larger than this machine's memory, or sequences are too long.
    """
    config = _config(architecture, folder, overrides)
    kind = _class_of(config)
    if folder and _has_weights(Path(folder)):
        own = {"local_files_only": True, "torch_dtype": torch.float32}
        module: nn.Module = kind.from_pretrained(folder, config=config, **own)
    else:
        if architecture not in _SHAPES:
            _check_size(kind, config)
        module = kind(config)
        random_batch_norm(module)
    return module, _inputs(module, config, batch_size, sequence_length)


def sequence_length(architecture: str = "", folder: str = "", **overrides: Any) -> int | None:
    """Tokens per sequence where the cell names none; None for a model without text."""
    config = _config(architecture, folder, overrides)
    return min(TOKENS, _most_tokens(config)) if _takes_text(_class_of(config), config) else None


def note(architecture: str = "", folder: str = "", **overrides: Any) -> str | None:
    """What to say about the weights of a model by name; None if they are its own."""
    if folder:
        return None if _has_weights(Path(folder)) else f"{folder} has no weights: they are random"
    if architecture in _SHAPES:
        return (
            f"hf:{architecture} is not in the cache of the Hugging Face hub: it has the shape of that model and random "
            f"weights; for its own: hf download {architecture}"
        )
    kind = type(_config(architecture, folder, overrides)).__name__
    return (
        f"hf:{architecture} is not in the cache of the Hugging Face hub: it has the shape of transformers' default "
        f"{kind}, which may be another size, and random weights; for its own: hf download {architecture}"
    )


def _config(architecture: str, folder: str, overrides: Mapping[str, Any]) -> Any:
    """The configuration, with the fields that the user gave; no cache of keys and values, whose use is generation."""
    transformers = import_transformers()
    if folder:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **overrides)
    else:
        model_type, shape = _SHAPES.get(architecture) or (_type_of(architecture, list(transformers.CONFIG_MAPPING)), {})
        config = transformers.CONFIG_MAPPING[model_type](**{**shape, **overrides})
    if hasattr(config, "use_cache"):
        config.use_cache = False
    return config


def _type_of(architecture: str, types: list[str]) -> str:
    """The model_type that a name begins with: bert of ``someone/bert-tiny``.

    Raises:
        ValueError: it begins with none.
    """
    name = architecture.rpartition("/")[2].lower().replace("_", "-")
    fitting = [kind for kind in types if f"{name}-".startswith(f"{kind.replace('_', '-')}-")]
    if not fitting:
        near = difflib.get_close_matches(architecture, [*_SHAPES, *types], n=1)
        raise ValueError(
            f"hf:{architecture} is not in the cache of the Hugging Face hub, and its shape is not known"
            f"{f'; did you mean hf:{near[0]}?' if near else ''}; download it with: hf download {architecture}, or name "
            "a folder: hf:./folder"
        )
    return max(fitting, key=len)


def _class_of(config: Any) -> Any:
    """The class of the model: the one that its weights are of, or else the first task that has one."""
    transformers = import_transformers()
    named = next((getattr(transformers, name, None) for name in config.architectures or ()), None)
    if named is not None:
        return named
    if hasattr(config, "text_config") and hasattr(config, "vision_config"):
        return transformers.MODEL_MAPPING[type(config)]
    mappings = [getattr(transformers, name) for name in _TASKS]
    found = next((mapping[type(config)] for mapping in mappings if type(config) in mapping), None)
    if found is None:
        raise ValueError(f"transformers has no model for {type(config).__name__}")
    return found[0] if isinstance(found, tuple) else found


def _has_weights(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in ("*.safetensors*", "pytorch_model*.bin*"))


def _check_size(kind: Any, config: Any) -> None:
    """Refuse a model that does not fit: the default configurations of some types have billions of parameters.

    Raises:
        ValueError: its weights take more memory than there is.
    """
    with torch.device("meta"):
        parameters = sum(tensor.numel() for tensor in kind(config).parameters())
    available = re.search(r"MemAvailable:\s+(\d+) kB", kernel.text(Path("/proc/meminfo")) or "")
    memory = 1024 * int(available[1]) if available else 4 * parameters
    if 4 * parameters > memory:
        raise ValueError(
            f"{kind.__name__} has {parameters / 1e9:.1f} billion parameters, {4 * parameters / 1e9:.0f} GB in fp32, "
            f"and {memory / 1e9:.0f} GB are free; make it smaller, as in model.kwargs.num_hidden_layers=2"
        )


def _text(config: Any) -> Any:
    return getattr(config, "text_config", config)


def _parameters(kind: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind.forward).parameters


def _takes_text(kind: Any, config: Any) -> bool:
    return "input_ids" in _parameters(kind) and bool(getattr(_text(config), "vocab_size", None))


def _most_tokens(config: Any) -> int:
    text = _text(config)
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
    most = next((size for name in names if isinstance(size := getattr(text, name, None), int) and size > 0), 10**6)
    # RoBERTa and its kin count positions from behind the padding's.
    offset = 1 + (text.pad_token_id or 0) if text.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return max(1, most - offset)


def _inputs(module: nn.Module, config: Any, batch_size: int, length: int | None) -> dict[str, torch.Tensor]:
    """The arguments of forward(), by name.

    Raises:
        ValueError: the model has no sequences of this length.
    """
    taken, inputs = _parameters(type(module)), dict[str, torch.Tensor]()
    takes_text = _takes_text(type(module), config)
    if length is not None and not takes_text:
        raise ValueError(f"sequence_length={length}: {type(module).__name__} has no sequences of tokens; leave it out")
    if length is not None and length > _most_tokens(config):
        raise ValueError(
            f"sequence_length={length}: {type(module).__name__} takes at most {_most_tokens(config)} tokens"
        )
    tokens = length or min(TOKENS, _most_tokens(config))
    if takes_text:
        inputs["input_ids"] = _token_ids(config, batch_size, tokens)
        if "attention_mask" in taken:
            inputs["attention_mask"] = torch.ones(batch_size, tokens, dtype=torch.long)
    if "pixel_values" in taken:
        inputs["pixel_values"] = images(batch_size, *_image_shape(config))
    if "input_features" in taken:
        frames = 2 * getattr(config, "max_source_positions", 1500)
        inputs["input_features"] = torch.randn(batch_size, getattr(config, "num_mel_bins", 80), frames)
    if "input_values" in taken:
        inputs["input_values"] = torch.randn(batch_size, _SAMPLING_RATE * _SECONDS)
    if config.is_encoder_decoder and "decoder_input_ids" in taken:
        inputs["decoder_input_ids"] = _token_ids(config, batch_size, tokens if takes_text else _PROMPT)
    if not inputs:
        raise ValueError(
            f"{type(module).__name__}: what it takes ({', '.join(list(taken)[1:4])}) does not follow from its "
            "configuration; write a callable of your own for it: docs/your_model.md"
        )
    return inputs


def _token_ids(config: Any, batch_size: int, tokens: int) -> torch.Tensor:
    """Random tokens from the upper half of the vocabulary, where no padding or other special token is."""
    most = _text(config).vocab_size
    return torch.randint(most // 2, most, (batch_size, tokens))


def _image_shape(config: Any) -> Iterator[int]:
    """Channels, height and width."""
    vision = getattr(config, "vision_config", config)
    size = getattr(vision, "image_size", None) or _IMAGE_SIZE
    height, width = size if isinstance(size, (list, tuple)) else (size, size)
    yield from (getattr(vision, "num_channels", 3), height, width)
