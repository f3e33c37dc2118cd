"""Saved views of MLflow's UI: how their state is packed, and which cells each view lets in.

What the UI makes of them, test_browser.py looks at in a browser.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from runner.protocol.cell import AXES
from runner.tracking import views
from runner.tracking.views import View

SWEEP = "20260101-000000-abcd"
GROUPS = ("cost", "latency", "onednn")


def of_sweep(*axes: str, undrawn: tuple[str, ...] = (), tables: bool = True) -> dict[str, View]:
    return views.sweep_views(SWEEP, axes, undrawn, GROUPS, tables)


def every_view() -> list[View]:
    return [*of_sweep(*AXES).values(), views.unranked_view(SWEEP, AXES), views.experiment_view()]


def charts(*axes: str, undrawn: tuple[str, ...] = ()) -> View:
    return next(view for view in of_sweep(*axes, undrawn=undrawn).values() if view.mode == "CHART")


@pytest.mark.parametrize("view", every_view(), ids=lambda view: f"{view.key}-{view.mode}")
def test_a_view_is_a_tag_that_mlflow_takes_and_its_ui_unpacks(view: View) -> None:
    tag = view.tag(1_700_000_000_000)
    assert len(tag) <= 5000
    value: dict[str, Any] = json.loads(tag)
    assert value["createdAt"] == value["updatedAt"] == 1_700_000_000_000
    packed = value["state"].removeprefix("deflate;")
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert state == view.state
    assert state["columnOrder"] == state["selectedColumns"] == list(state["columnWidths"])


def test_only_ranked_cells_are_in_an_order_of_speed_and_the_others_have_a_view_of_their_own() -> None:
    for view in (*of_sweep("ipex").values(), views.experiment_view()):
        assert "tags.ranked = 'yes'" in view.state["searchFilter"]
        assert "right output only" in view.name
    rest = views.unranked_view(SWEEP, ("ipex",))
    assert "tags.ranked = 'no'" in rest.state["searchFilter"]
    assert rest.state["selectedColumns"][:3] == ["params.`ipex`", "tags.`quality`", "tags.`failure`"]


def test_parallel_coordinates_are_over_the_axes_that_vary_but_not_over_settings() -> None:
    state = charts("allocator", "warmup", "ipex").state
    parallel = next(chart for chart in state["compareRunCharts"] if chart["type"] == "PARALLEL")
    assert parallel["selectedParams"] == ["allocator", "ipex"]
    assert parallel["selectedMetrics"] == ["latency/p50_ms"]


def test_an_axis_of_numbers_and_words_is_left_out_of_them_by_name() -> None:
    cells = [{"threads": "cores", "batch_size": "1", "ipex": "on"}, {"threads": "1", "batch_size": "8", "ipex": "off"}]
    undrawn = views.undrawable_axes(cells, ("threads", "batch_size", "ipex", "warmup"))
    assert undrawn == ["threads"]
    state = charts("threads", "batch_size", "ipex", undrawn=("threads",)).state
    assert state["compareRunCharts"][0]["selectedParams"] == ["batch_size", "ipex"]
    assert state["compareRunSections"][0]["name"] == "Axes against latency, without threads"


def test_without_an_axis_that_varies_there_are_no_parallel_coordinates() -> None:
    assert {chart["type"] for chart in charts("warmup").state["compareRunCharts"]} == {"SCATTER", "BAR"}


def test_every_chart_is_in_an_open_section_and_the_uis_own_sections_are_folded() -> None:
    state = charts("ipex").state
    shown = {section["uuid"]: section["display"] for section in state["compareRunSections"]}
    drawn = [chart["metricSectionId"] for chart in state["compareRunCharts"]]
    assert set(drawn) == {name for name, display in shown.items() if display}
    assert [name for name, display in shown.items() if not display] == list(GROUPS)
    uuids = [chart["uuid"] for chart in state["compareRunCharts"]]
    assert len(set(uuids)) == len(uuids)


def test_a_link_names_the_view_and_the_page_it_opens() -> None:
    table, drawn, side_by_side = (view.link("http://h/#/experiments/7") for view in of_sweep("ipex").values())
    assert table == f"http://h/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey={SWEEP}"
    assert drawn == f"{table}-charts&compareRunsMode=CHART"
    assert side_by_side == f"{table}-charts&compareRunsMode=ARTIFACT"


def test_without_tables_nothing_is_offered_side_by_side() -> None:
    assert "ARTIFACT" not in {view.mode for view in of_sweep("ipex", tables=False).values()}


def test_what_tells_a_cell_apart_comes_first_in_its_name() -> None:
    axes = {"model": "tiny", "allocator": "jemalloc", "ipex": "on", "batch_size": "8", "threads": "all"}
    assert views.run_name(axes) == "tiny jemalloc ipex=on"
    assert views.run_name(axes, ("batch_size", "warmup", "ipex")) == "batch_size=8 ipex=on tiny jemalloc"
