"""Values of YAML as text of Hydra's grammar: whatever they are, Hydra and OmegaConf read them back as they were."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from runner.config.override_text import as_word, quoted, text_of
from runner.machine import installation
from runner.protocol.errors import RunnerError

TEXTS = [
    "oversize_threshold:1,background_thread:true", "/models/epoch=9-step=100.ckpt", "plain text (draft)", "x #1",
    "null", "True", "nan", "1e3", "007", "a'b", 'a"b', "C:\\", "\\d", "[a]", "{a: 1}", "range(1,3)", "прогоны", "",
    " a ", "${batch_size}", "\\${x}", "a=b",
]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True), inner)
    ),
    max_leaves=6,
)


def read_back(text: str) -> Any:
    """What Hydra makes of ``key=text``, as a program sees it."""
    override = OverridesParser.create().parse_override(f"key={text}")
    assert not override.is_sweep_override()
    config = OmegaConf.create({"key": None})
    OmegaConf.update(config, "key", override.value())
    return OmegaConf.to_container(config, resolve=True)["key"]  # type: ignore[index,call-overload]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_that_text_whatever_it_looks_like(text: str) -> None:
    assert read_back(text_of(text)) == text
    assert read_back(quoted(text)) == text


@given(VALUES)
def test_a_value_is_read_back_as_it_was(value: object) -> None:
    text = str(value)
    if "\0" in text or "\\x00" in text:
        return
    assert read_back(text_of(value)) == value


def test_names_and_numbers_of_rules_need_no_quotes() -> None:
    assert [as_word(text) for text in ("jemalloc", "-", "4", "a,b")] == ["jemalloc", "-", "4", '"a,b"']


def test_a_key_that_hydra_could_not_read_is_refused() -> None:
    with pytest.raises(RunnerError, match="the key 'a:b' of a mapping must be a word"):
        text_of({"a:b": 1})


def choices(params: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Key -> the values that a matrix with these hydra.sweeper.params has, each as it is read back."""
    monkeypatch.setattr(sys, "path", [str(installation.PLUGINS), *sys.path])
    sweeper = importlib.import_module("hydra_plugins.runner_matrix").MatrixSweeper(OmegaConf.create(params))
    sweeper.config = OmegaConf.create({"hydra": {"runtime": {"choices": {}}}})
    sweeper.hydra_context = SimpleNamespace(config_loader=None)
    return {key: [read_back(text) for text in texts] for key, texts in sweeper._choices([]).items()}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"allocator.env.MALLOC_CONF": ["a:1,b:2", "c:-1"]}, {"++allocator.env.MALLOC_CONF": ["a:1,b:2", "c:-1"]}),
        ({"twin": ["a", "b"], "seed": [1, 2]}, {"twin": ["a", "b"], "seed": [1, 2]}),
        ({"+model.kwargs": [{"size": 16}, {"size": 32}]}, {"++model.kwargs": [{"size": 16}, {"size": 32}]}),
        ({"model.kwargs.w": ["/m/epoch=9.ckpt", "x #1"]}, {"++model.kwargs.w": ["/m/epoch=9.ckpt", "x #1"]}),
        ({"model.kwargs.w": ["null", None, "1e3", 1e3]}, {"++model.kwargs.w": ["null", None, "1e3", 1e3]}),
        ({"ipex": "off,on"}, {"ipex": ["off", "on"]}),
        ({"seed": 3}, {"seed": [3]}),
    ],
)
def test_an_element_of_a_list_is_a_value_and_a_single_text_is_hydras(
    params: dict[str, Any], expected: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert choices(params, monkeypatch) == expected


def test_a_list_has_as_many_values_as_elements(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for text in TEXTS if "${" not in text]
    assert choices({"model.kwargs.note": texts}, monkeypatch) == {"++model.kwargs.note": texts}
