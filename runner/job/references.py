"""Where a sweep keeps what its jobs share of a model: the fp32 reference, and weights that are handed over.

A reference is computed by the first job that needs it. Weights are in a file only where torch builds would make
different ones from one seed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from runner.protocol import content_hash
from runner.protocol.cell import Cell

FOLDER = "references"
# Parts of a cell's identity that don't change what a model computes in fp32: where it runs, and whose malloc it uses.
_NO_PART = ("placement", "lib")


def kept_file(sweep: Path, cell: Cell, identity: Mapping[str, str], input_sets: int) -> Path:
    """The file for the reference of a cell's model: the same for all cells whose model, seed and inputs are the same.

    Args:
        sweep: the sweep's folder.
        identity: what else the cell's results depend on, see runner.sweep.identity.
    """
    model = cell.model
    asked = [model.target, dict(model.kwargs), cell.batch_size, cell.sequence_length, cell.seed, input_sets]
    text = json.dumps([asked, of_model(identity)], sort_keys=True, default=str)
    return sweep / FOLDER / f"{content_hash.short(text.encode())}.pt"


def weights_file(sweep: Path, cell: Cell) -> Path:
    """The file for the weights of a cell's model, whatever its torch build."""
    asked = [cell.model.target, dict(cell.model.kwargs), cell.batch_size, cell.sequence_length, cell.seed]
    text = json.dumps(asked, sort_keys=True, default=str)
    return sweep / FOLDER / f"weights-{content_hash.short(text.encode())}.pt"


def of_model(identity: Mapping[str, str]) -> dict[str, str]:
    """The part of a cell's identity that changes what its model computes in fp32."""
    return {name: value for name, value in identity.items() if not name.startswith(_NO_PART)}


def forget(sweep: Path) -> None:
    """Remove what a sweep's jobs shared: with the sweep its use ends, and it can be computed again."""
    shutil.rmtree(sweep / FOLDER, ignore_errors=True)
