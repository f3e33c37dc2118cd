"""Recorded evidence of real jobs, for tests: as the data in its file, which a test may tamper with, and as a Proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from runner.checks.gate import Proof
from runner.protocol import stored
from runner.protocol.torch_build import TorchBuild
from tests.conftest import ROOT

FOLDER = ROOT / "tests/data/evidence"


def data_of(name: str) -> dict[str, Any]:
    """What evidence.json of that job holds."""
    data: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return data


def proof_of(data: dict[str, Any]) -> Proof:
    """The proof in the data of an evidence.json, read as strictly as a result is.

    Raises:
        FormatError: it is not of that shape.
    """
    evidence = {name: value for name, value in data.items() if name not in ("onednn", "quality")}
    parts = {"evidence": evidence, "kernels": data["onednn"], "quality": data["quality"]}
    return stored.typed(Proof, parts, Path("evidence.json"))


def recorded_build(name: str = "ptmalloc_off") -> TorchBuild:
    """The torch build on which that job was recorded, as its files described it."""
    evidence = proof_of(data_of(name)).evidence
    ran = evidence.build
    return TorchBuild(
        python=f"{ran.prefix}/bin/python",
        version=evidence.versions.python,
        prefix=ran.prefix,
        has_headers=True,
        folder=ran.torch_folder,
        is_in_user_site=False,
        torch=evidence.versions.torch,
        git=ran.git,
        parts=("torchscript", "pt2e", "fx", "xeon"),
        distributions=ran.packages,
        hashes={},
    )


def tampered(name: str, *path: Any, value: Any) -> Proof:
    """The proof of a recorded job in which one thing is another."""
    data = data_of(name)
    place = data
    for key in path[:-1]:
        place = place[key]
    assert place[path[-1]] != value
    place[path[-1]] = value
    return proof_of(data)
