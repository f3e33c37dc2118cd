"""Imports of libraries so large that Python's garbage collector takes a fifth of them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Import modules without the collector, which would look again and again through objects that all stay.

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
