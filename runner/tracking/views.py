"""What MLflow's UI opens on: names of cells, and the views of a sweep as the UI of MLflow 3.17 keeps them. Pure.

A saved view is an experiment tag: the state of the runs page as deflated JSON. The page reads it where a link carries
the view's key. Its schema is written down nowhere: it was read from the UI's source (``compareRunCharts`` and its
neighbours), and wants looking at in a browser when MLflow is updated.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.matrix.cell import AXES, worded
from runner.results.metric_names import Metric, Tag

TAG = "mlflow.sharedViewState."
# What the UI calls its three ways to show runs, in the address.
_TABLE, _CHARTS, _ARTIFACTS = "TABLE", "CHART", "ARTIFACT"

_CELLS = "tags.kind = 'cell'"
_RANKED = f"tags.{Tag.RANKED} = 'yes'"
# What the table of a ranking shows (see runner.report.columns), in this order: by column, its width in pixels.
SHOWN: Mapping[Metric | Tag, int] = {
    Metric.P50: 130,
    Tag.EVIDENCE: 90,
    Tag.QUALITY: 90,
    Tag.CONTAMINATED: 120,
    Metric.RELATIVE_ERROR: 130,
    Tag.ISA: 150,
    Tag.MAIN_CAUSE: 330,
    Tag.BOTTLENECK: 150,
    Metric.MINOR_FAULTS: 170,
    Metric.CV: 120,
    Metric.SAMPLES_PER_S: 180,
    Metric.RSS_PEAK: 160,
}


def _column(source: Metric | Tag) -> str:
    """What the UI calls the column of a metric or tag."""
    return f"{'metrics' if isinstance(source, Metric) else 'tags'}.`{source}`"


_P50_COLUMN = _column(Metric.P50)
_WIDTHS = {_column(source): width for source, width in SHOWN.items()}


@dataclass(frozen=True)
class View:
    """A saved view, and the page that a link opens it in."""

    key: str
    """The end of the tag's name, which the link carries too."""
    name: str
    """Its name in the UI's list of views."""
    state: Mapping[str, Any]
    """The state of the runs page."""
    mode: str = _TABLE
    """Table, charts, or artifacts side by side."""

    def tag(self, now_ms: int) -> str:
        """The value of the experiment's tag ``TAG + key``; MLflow takes 5 000 characters."""
        packed = zlib.compress(json.dumps(self.state, separators=(",", ":")).encode(), 9)
        state = "deflate;" + base64.b64encode(packed).decode()
        return json.dumps({"name": self.name, "createdAt": now_ms, "updatedAt": now_ms, "state": state})

    def link(self, page: str) -> str:
        """Where the UI shows it.

        Args:
            page: address of the experiment.
        """
        address = f"{page}/runs?workflowType=machine_learning&viewStateShareKey={self.key}"
        return address if self.mode == _TABLE else f"{address}&compareRunsMode={self.mode}"


def run_name(axes: Mapping[str, str], first: Sequence[str] = ()) -> str:
    """A cell's name: the UI cuts it off after some twenty characters, so what tells it apart comes ``first``."""
    names = dict.fromkeys([*(axis for axis in first if axis in AXES), *AXES[:6]])
    return " ".join(worded(axis, axes[axis]) for axis in names if axis in axes)


def undrawable(cells: Sequence[Mapping[str, str]], axes: Sequence[str]) -> list[str]:
    """Axes of both numbers and words, such as threads=cores,1: the UI's parallel coordinates lose the cells of either.

    Args:
        cells: axis -> value.
    """

    def is_number(text: str) -> bool:
        return text.replace(".", "", 1).isdigit()

    return [axis for axis in axes if len({is_number(cell[axis]) for cell in cells if axis in cell}) > 1]


def of_sweep(
    sweep_id: str, axes: Sequence[str], undrawn: Sequence[str], groups: Sequence[str], tables: bool
) -> dict[str, View]:
    """What a reader is told a view shows -> view.

    Args:
        axes: that vary; settings among them are no params in MLflow and have no column.
        undrawn: of these axes, those that parallel coordinates can't draw, see `undrawable`.
        groups: of its cells' metrics, the part before the slash.
        tables: whether captures left any.
    """
    rows, key = f"{_CELLS} and tags.sweep_id = '{sweep_id}'", f"sweep-{sweep_id}"
    varying = [axis for axis in axes if axis in AXES]
    ranking = _state(f"{rows} and {_RANKED}", _ranking(varying))
    charts = {**ranking, **_charts(varying, undrawn, groups)}
    drawn = f"{sweep_id}: charts, right output only"
    shown = {
        "cells with the right output, fastest first": View(
            key, f"{sweep_id}: fastest first, right output only", ranking
        ),
        "charts: axes against latency, trade-offs, tails": View(f"{key}-charts", drawn, charts, _CHARTS),
    }
    if tables:
        # No state chooses a table: the UI opens the one that was logged first (itt/by_op.json), of the first ten cells.
        shown["captured tables of the ten fastest, side by side"] = View(f"{key}-charts", drawn, charts, _ARTIFACTS)
    return shown


def of_the_rest(sweep_id: str, axes: Sequence[str]) -> View:
    """The cells of a sweep that `of_sweep` leaves out, with their reasons."""
    reasons = {_column(Tag.QUALITY): 330, _column(Tag.FAILURE): 450}
    # The reasons come early, and keep their width.
    columns = _axes(axes) | reasons | _WIDTHS | reasons
    state = _state(f"{_CELLS} and tags.sweep_id = '{sweep_id}' and tags.{Tag.RANKED} = 'no'", columns)
    return View(f"sweep-{sweep_id}-rest", f"{sweep_id}: wrong output or failed", state)


def of_all() -> View:
    """The cells of all sweeps, fastest first.

    Sweeps of one experiment vary different axes: it shows those that make two cells comparable.
    """
    columns = _ranking((*AXES[:6], "batch_size", "instances"))
    name = "all sweeps: fastest first, right output only"
    return View("matrix", name, _state(f"{_CELLS} and {_RANKED}", columns))


def _axes(axes: Sequence[str]) -> dict[str, int]:
    return {f"params.`{axis}`": 160 if axis == "model" else 120 for axis in axes if axis in AXES}


def _ranking(axes: Sequence[str]) -> dict[str, int]:
    """Latency first: behind many axes it would be out of sight."""
    return {_P50_COLUMN: _WIDTHS[_P50_COLUMN]} | _axes(axes) | _WIDTHS


def _state(rows: str, widths: Mapping[str, int]) -> dict[str, Any]:
    """The state of the runs page, fastest first.

    Args:
        rows: which, as a filter.
        widths: column -> width in pixels, in the order shown.
    """
    return {
        "searchFilter": rows,
        "orderByKey": _P50_COLUMN,
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(widths),
        "columnOrder": list(widths),
        "columnWidths": dict(widths),
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": True,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "globalLineChartConfig": {"xAxisKey": "step", "lineSmoothness": 0, "selectedXAxisMetricKey": ""},
    }


def _charts(axes: Sequence[str], undrawn: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    """Our sections of charts, open; below them, folded, those in which the UI puts every metric without a chart."""
    drawn = [axis for axis in axes if axis not in undrawn]
    parallel = {
        "type": "PARALLEL",
        "selectedParams": drawn,
        "selectedMetrics": [Metric.P50.value],
        "showAllRuns": False,
    }
    left_out = f", without {', '.join(undrawn)}" if undrawn else ""
    # Section -> (cards in a row, charts).
    ours: dict[str, tuple[int, list[dict[str, Any]]]] = {
        f"Axes against latency{left_out}": (1, [parallel] if drawn else []),
        "Trade-offs": (
            2,
            [_scatter(Metric.P50, Metric.RSS_PEAK), _scatter(Metric.RELATIVE_ERROR, Metric.SAMPLES_PER_S)],
        ),
        "Median, tail and spread of latency": (3, [_bars(Metric.P50), _bars(Metric.P90), _bars(Metric.CV)]),
    }
    plain = {"isReordered": False, "deleted": False, "isGenerated": False}
    sections = [
        {"uuid": name, "name": name, "display": True, "columns": columns, "cardHeight": 420} | plain
        for name, (columns, cards) in ours.items()
        if cards
    ] + [{"uuid": name, "name": name, "display": False} | plain for name in groups]
    charts = [
        {"uuid": f"{name} {n}", "metricSectionId": name, "deleted": False, "isGenerated": False} | chart
        for name, (_, cards) in ours.items()
        for n, chart in enumerate(cards)
    ]
    # Reordered: else the UI sorts the sections by name.
    return {"compareRunCharts": charts, "compareRunSections": sections, "isAccordionReordered": True}


def _scatter(x: Metric, y: Metric) -> dict[str, Any]:
    axes = {name: {"key": metric.value, "type": "METRIC"} for name, metric in (("xaxis", x), ("yaxis", y))}
    return {"type": "SCATTER", "runsCountToCompare": 100} | axes


def _bars(metric: Metric) -> dict[str, Any]:
    return {"type": "BAR", "metricKey": metric.value, "displayName": metric.value, "runsCountToCompare": 100}
