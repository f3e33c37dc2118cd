"""What the first round of a cell saw of its operators and kernels, to which later rounds are held.

Which operators and kernels run follows from the model, its graph and the libraries, which are the same in each process
of a cell. So they are looked at once; a later round proves that the process is the same, and computes the same output.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.checks.gate import Mismatch
from runner.protocol import stored
from runner.protocol.evidence import Evidence
from runner.protocol.resultfile import WorkerResult, read_result, result_file
from runner.protocol.stored import FormatError
from runner.protocol.verdicts import EvidenceVerdict, QualityVerdict, Status
from runner.results.outcome import OUTCOME_FILE, job_folder, read_outcome

# The parts of the evidence from which operators and kernels follow.
_DECIDE = ("graph", "ipex", "precision", "tensors", "float32_settings", "versions", "build", "model")
# What each process has of its own in them: where it unpacked a package, what its cache held.
_OF_A_PROCESS = ("objects", "cached_files", "cache_hits")


@dataclass(frozen=True)
class FirstLook:
    """The first round of a cell that ran as asked."""

    folder: Path
    """Its job's folder, which holds oneDNN's log."""
    results: Sequence[WorkerResult]
    """The result of each instance, with the operators that were seen."""

    @classmethod
    def of(cls, sweep: Path, cell_id: str, instances: int) -> FirstLook | None:
        """The first round of a cell; None if it did not run as asked, saw no operators, or chose kernels by their time,
        which each process does for itself."""
        folder = job_folder(sweep, cell_id, 0)
        try:
            outcome = read_outcome(folder / OUTCOME_FILE)
            results = [read_result(folder / result_file(i, instances)) for i in range(instances)]
        except (FormatError, OSError):
            return None
        is_right = (outcome.evidence, outcome.quality) == (EvidenceVerdict.OK, QualityVerdict.OK)
        saw_all = all(
            result.evidence and result.evidence.operators and not result.evidence.graph.autotuned for result in results
        )
        return cls(folder, results) if outcome.status == Status.FINISHED and is_right and saw_all else None

    def unlike(self, results: Sequence[WorkerResult]) -> list[Mismatch]:
        """In which parts of their evidence later results differ from the first round's."""
        mismatches = []
        for first, later in zip(self.results, results, strict=True):
            if first.evidence is None or later.evidence is None:
                continue
            old, new = _deciding(first.evidence), _deciding(later.evidence)
            differing = [name for name in _DECIDE if old[name] != new[name]]
            if differing:
                actual = f"another {' and another '.join(differing)}"
                cure = "something outside the cell differs between its processes; see evidence.json of both rounds"
                mismatches.append(Mismatch("round", "a process like the first round's", actual, cure))
        return mismatches

    def completed(self, later: WorkerResult, instance: int) -> WorkerResult:
        """A later round's result with what the first one saw."""
        first = self.results[instance]
        if first.evidence is None or later.evidence is None:
            return later
        evidence = replace(later.evidence, operators=first.evidence.operators)
        return replace(later, evidence=evidence, onednn_step_s=first.onednn_step_s)


def _deciding(evidence: Evidence) -> dict[str, Any]:
    """The parts that decide which operators and kernels run, without what each process has of its own."""
    parts: dict[str, Any] = stored.as_written(evidence)
    graph = {name: value for name, value in parts["graph"].items() if name not in _OF_A_PROCESS}
    return {**{name: parts[name] for name in _DECIDE}, "graph": graph}
