"""docs/proofs.md names every check of the gate, and only lies that the tests plant."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from runner.checks.gate import CHECKS
from tests.conftest import ROOT

PAGE = (ROOT / "docs/proofs.md").read_text(encoding="utf-8")
MODELS = sorted(set(re.findall(r"`(\w+)\.(\w+)`", PAGE)) - {("torch", "compile"), ("ipex", "optimize")})
TESTS = sorted(set(re.findall(r"`(test_\w+)`", PAGE)))
FILES = {file: file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py")}


def name_of(check: Callable[..., Any]) -> str:
    """A check as the page calls it: by its function, or by its module if it has one of its own."""
    if check.__name__ == "check":
        return check.__module__.rpartition(".")[2]
    return check.__name__.removeprefix("_").removeprefix("check_")


def test_the_page_has_a_row_for_each_check_of_the_gate() -> None:
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.M) == [name_of(check) for check in CHECKS]


@pytest.mark.parametrize(("module", "name"), MODELS, ids=".".join)
def test_a_model_that_the_page_names_is_run_by_a_test(module: str, name: str) -> None:
    file = ROOT / f"tests/models/{module}.py"
    assert f"\ndef {name}(" in FILES[file]
    assert any(re.search(rf"\b{name}\b", text) for other, text in FILES.items() if other.parent.name != "models")


@pytest.mark.parametrize("name", TESTS)
def test_a_test_that_the_page_names_is_there(name: str) -> None:
    assert any(f"\ndef {name}(" in text for text in FILES.values())
