"""The torch build that was asked for is the one that ran: its environment, its files and the library in the process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from runner.checks.proof import Mismatch, Proof, shown
from runner.launch import PlacedCell

# Packages of the build that decide what a model computes and by which kernels.
_PACKAGES = ("torch", "torchvision", "torchao", "transformers", "intel-extension-for-pytorch")
_LEAK = "something put another environment before it: PYTHONPATH, a .pth file, or the model's code"


def check(placed: PlacedCell, proof: Proof) -> Iterator[Mismatch]:
    """The mismatches between the torch build that the cell asks for and the one that was loaded."""
    asked, actual, versions = placed.build, proof.evidence.build, proof.evidence.versions
    name = placed.cell.torch.name
    if actual.prefix != asked.prefix:
        cure = "the launcher started another interpreter; see launch.json of the job"
        yield Mismatch("torch", f"the environment {asked.prefix} ({name})", actual.prefix, cure)
        return
    if actual.torch_folder != asked.folder:
        yield Mismatch("torch", f"torch from {asked.folder} ({name})", shown(actual.torch_folder), _LEAK)
        return
    wanted = [str(PurePath(asked.folder or "") / "lib" / "libtorch_cpu.so")]
    if actual.libraries != wanted:
        found = " and ".join(actual.libraries) or "none in the process"
        yield Mismatch("torch", f"{wanted[0]} ({name})", found, "LD_LIBRARY_PATH, or the model's code, loads another")
    for what, of_build, ran in (("torch", asked.torch, versions.torch), ("the torch of commit", asked.git, actual.git)):
        if of_build != ran:
            cure = "torch was installed anew while the sweep ran; start the sweep again"
            yield Mismatch("torch", f"{what} {shown(of_build)} ({name})", shown(ran), cure)
    for package in _PACKAGES:
        of_build, ran = asked.distributions.get(package), actual.packages.get(package)
        if of_build != ran:
            yield Mismatch("torch", f"{package} {of_build or 'not installed'} ({name})", ran or "not installed", _LEAK)
