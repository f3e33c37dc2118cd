"""Imports without the garbage collector, which leave it as it was, and without what is installed for the runner."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from runner.worker.imports import without_collections


def test_what_was_made_meanwhile_is_old_afterwards_and_the_collector_is_as_it_was() -> None:
    gc.collect()
    with without_collections():
        assert not gc.isenabled()
        made = [[number] for number in range(10_000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    oldest = {id(each) for each in gc.get_objects(generation=2)}
    assert all(id(each) in oldest for each in made)


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with without_collections():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(("first", "has_it"), [("import runner", False), ("import transformers", True)])
def test_transformers_has_scikit_learn_only_where_the_model_imported_it_before(first: str, has_it: bool) -> None:
    script = (
        f"{first}\n"
        "from runner.worker import imports\n"
        "has_it = imports.import_transformers().utils.is_sklearn_available()\n"
        "import sklearn\n"  # a model's own import finds it in any case
        "print(has_it)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"{has_it}\n"
