"""What a cell's run says about itself in MLflow: what was measured first, then the conclusion, then why."""

from __future__ import annotations

from runner.analysis.ranking import Row
from runner.report import descriptions
from runner.results.circumstances import Circumstances
from runner.results.ledger import CellEnd
from runner.results.outcome import CellRecord
from tests.builders import contaminated, noisy_record, ranked

BASE = noisy_record("ptmalloc", 20.0, 20.2, 19.9)
WHERE = Circumstances("AMD EPYC", 2, "2.8.0", "2026-01-01", 480.0)


def end_of(cell: CellRecord) -> tuple[CellEnd, Row]:
    ranking = ranked([BASE] if cell is BASE else [BASE, cell], BASE.cell_id)
    [row] = [row for row in ranking.rows if row.cell.cell_id == cell.cell_id]
    return descriptions.cell_end(row, ranking.baseline, ranking.distinguishing, WHERE), row


def test_a_faster_cell_says_what_was_measured_then_by_how_much_it_is_faster_and_how_sure_that_is() -> None:
    end, row = end_of(noisy_record("tcmalloc", 10.0, 10.1, 9.9))
    measured, conclusion, *_ = end.description.split("\n\n")
    assert "AMD EPYC" in measured
    assert "8 min" not in measured  # of the sweep
    assert conclusion.startswith("**tcmalloc")
    assert f"{row.speedup:.2f}x the baseline" in conclusion
    assert "ptmalloc" in conclusion
    assert ": faster, 95 % interval " in conclusion
    assert (end.speedup, end.difference) == (row.speedup, "faster")


def test_the_baseline_is_called_so_and_has_no_speed_up_in_words() -> None:
    end, _ = end_of(BASE)
    assert end.difference == "baseline"
    assert end.description.endswith("the baseline.**")


def test_a_failed_cell_says_why_in_its_description() -> None:
    end, _ = end_of(noisy_record("jemalloc", failure="it crashed"))
    assert end.description.endswith("FAILED: it crashed**")
    assert end.speedup is None


def test_a_wrong_output_is_said_with_its_reason_and_has_no_speed_up() -> None:
    end, _ = end_of(noisy_record("jemalloc", 5.0, 5.1, 5.2, quality="rel_l2 0.3 is above 0.01"))
    assert "its output is WRONG: rel_l2 0.3 is above 0.01" in end.description.replace("\\", "")
    assert end.speedup is None


def test_what_disturbed_a_cell_is_in_its_description() -> None:
    end, _ = end_of(contaminated(noisy_record("tcmalloc", 10.0, 10.1, 9.9), 1))
    assert end.description.endswith("Others disturbed it: other processes took 48 % of a core.")
    assert end.difference == "can't be trusted"
