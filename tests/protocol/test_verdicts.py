"""The words of verdicts are texts: wherever a text was, they can stand."""

from __future__ import annotations

import json

import pytest

from runner.protocol.verdicts import EvidenceVerdict, QualityVerdict, Status, Word


@pytest.mark.parametrize("word", [*Status, *EvidenceVerdict, *QualityVerdict])
def test_a_word_prints_compares_hashes_and_is_stored_as_its_value(word: Word) -> None:
    text = word.value
    assert (str(word), f"{word}", f"{word:>12}") == (text, text, f"{text:>12}")
    assert word == text
    assert {word: 1}[text] == 1
    assert json.loads(json.dumps({"word": word})) == {"word": text}
