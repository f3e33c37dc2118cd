"""The columns of the ranking: declared once, explained in a sentence, and the same ones in MLflow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner.analysis.ranking import Ranking
from runner.commands import compare
from runner.report import html, tables
from runner.report.columns import COLUMNS, Column, Place, columns
from runner.results.metric_names import Metric, Tag
from runner.tracking import views
from tests.builders import noisy_record, ranked, record

BASE = noisy_record("ptmalloc", 20.0, 20.2, 19.9)


@pytest.fixture
def ranking() -> Ranking:
    return ranked([BASE, noisy_record("tcmalloc", 10.0, 10.1, 9.9)], BASE.cell_id)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.heading)
def test_every_column_is_explained_in_a_sentence(column: Column) -> None:
    assert re.fullmatch(r"[A-Z].*\.", column.explanation)


def test_no_two_columns_have_one_heading() -> None:
    assert len({column.heading for column in COLUMNS}) == len(COLUMNS)


def test_the_tables_of_a_sweep_and_of_compare_have_their_columns_in_one_order(ranking: Ranking) -> None:
    at_the_end, compared = (
        [heading for heading, _ in tables.ranking(ranking.rows, ranking.distinguishing, place).headings]
        for place in (Place.SWEEP, Place.COMPARE)
    )
    assert [heading for heading in compared if heading in at_the_end] == at_the_end


def test_the_views_of_mlflow_show_the_metrics_and_tags_of_the_ranking_s_columns() -> None:
    """Two tags stand there alone: the terminal says in notes which rounds were contaminated."""
    sources = {column.source for column in COLUMNS if Place.MLFLOW in column.places}
    assert sources == set(views.SHOWN) - {Tag.CONTAMINATED, Tag.BOTTLENECK}


def test_a_name_is_its_text_in_every_sentence_and_key() -> None:
    assert f"{Metric.P50} {Tag.ISA}" == "latency/p50_ms isa"
    by_text: dict[str, float] = {Metric.P50: 1.0}
    assert by_text["latency/p50_ms"] == 1.0
    assert {"latency/p50_ms": 2.0}[Metric.P50] == 2.0


def test_the_help_of_compare_and_the_report_explain_every_column_they_have(
    ranking: Ranking, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        compare.main(["--help"])
    help_text = " ".join(capsys.readouterr().out.split())
    html.write(ranking, tmp_path, "title", [], html.Origin())
    page = (tmp_path / "report.html").read_text()
    for column in COLUMNS:
        if Place.COMPARE in column.places:
            assert f"{column.heading} {column.explanation}" in help_text
        if Place.PAGE in column.places and column.is_shown(ranking.rows):
            assert f"<dt>{column.heading}</dt>" in page


@pytest.mark.parametrize(("seconds", "is_shown"), [((0.2, 30.0), True), ((30.0, 30.4), False)])
def test_the_time_to_compile_is_a_column_where_cells_differ_in_it(seconds: tuple[float, float], is_shown: bool) -> None:
    cells = [
        record(name, [0.01] * 5, figures={Metric.COMPILE_TIME: compile_s}, allocator=name)
        for name, compile_s in zip(("ptmalloc", "tcmalloc"), seconds, strict=True)
    ]
    rows = ranked(cells, cells[0].cell_id).rows
    shown = {column.heading: [column.text(row) for row in rows] for column in columns(Place.SWEEP, rows)}
    assert ("compile s" in shown) == is_shown
    if is_shown:
        assert sorted(shown["compile s"]) == ["0.2", "30"]
