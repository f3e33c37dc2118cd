"""Imports of large libraries, without what they would find here and not in an environment of their own."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def import_ipex() -> Any:
    """Import Intel Extension for PyTorch, which imports transformers."""
    with without_collections(), _without_scikit_learn():
        return importlib.import_module("intel_extension_for_pytorch")


def import_transformers() -> Any:
    """Import transformers."""
    with without_collections(), _without_scikit_learn():
        return importlib.import_module("transformers")


@contextmanager
def without_collections() -> Iterator[None]:
    """Import modules without the garbage collector, which would look again and again through objects that all stay: a
    fifth of the time.

    Afterwards these objects are in its oldest generation, where its own collections would have put them, so that no
    later one, in a timed loop perhaps, takes them for new.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # The quick way there: into the permanent generation, which is given back to the oldest.
        gc.freeze()
        gc.unfreeze()
        if was_enabled:
            gc.enable()


@contextmanager
def _without_scikit_learn() -> Iterator[None]:
    """Let transformers look for scikit-learn in vain, as in a torch build's own environment.

    The runner's has it for MLflow. transformers asks once, when it is imported, and takes it for metrics and for
    generation with an assistant; with it come pandas, pyarrow, and a second libgomp. A model that imports it itself, or
    imported transformers before, has it.
    """
    if "transformers" in sys.modules or "sklearn" in sys.modules:
        yield
        return
    sys.modules["sklearn"] = None  # type: ignore[assignment]  # Python's own mark for a module that can't be found
    try:
        yield
    finally:
        del sys.modules["sklearn"]
