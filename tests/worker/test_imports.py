"""Imports without the garbage collector, which leave it as it was."""

from __future__ import annotations

import gc

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
