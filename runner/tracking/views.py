"""The views that MLflow's UI opens on: names of cells, and views of a sweep in the format of MLflow 3.17. Pure.

A saved view is a tag of the experiment: the state of the runs page as deflated JSON. The page reads it when a link
carries the view's key. The format is not documented. It was read from the UI's source (``compareRunCharts`` and the
fields near it), so look at the views in a browser after every update of MLflow.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.protocol.cell import AXES, MAIN_AXES, in_words
from runner.results.metric_names import Metric, Tag

TAG = "mlflow.sharedViewState."
# This tag of a run is its description, as Markdown, which stands at the top of the run's page.
NOTE = "mlflow.note.content"
# What each page of a sweep shows.
FASTEST_FIRST = "cells with the right output, fastest first"
CHARTS = "charts: axes against latency, trade-offs, tails"
NOT_RANKED = "failed cells, and cells with the wrong output"
ALL_SWEEPS = "all sweeps of this experiment"
# The names in an address for the three ways in which the UI shows runs.
_TABLE, _CHARTS, _ARTIFACTS = "TABLE", "CHART", "ARTIFACT"

_CELLS = "tags.kind = 'cell'"
# This tag of every cell of a finished sweep keeps cells with a wrong output, which would look like winners, out of the
# views that are sorted by latency.
_RANKED = f"tags.{Tag.RANKED} = 'yes'"
# What the table of a ranking shows (see runner.report.columns), in this order: by column, its width in pixels.
SHOWN: Mapping[Metric | Tag, int] = {
    Metric.P50: 130,
    Metric.SPEEDUP: 130,
    Tag.DIFFERENCE: 150,
    Tag.MAIN_CAUSE: 290,
    Tag.EVIDENCE: 90,
    Tag.QUALITY: 90,
    Tag.CONTAMINATED: 120,
    Metric.RELATIVE_ERROR: 130,
    Tag.ISA: 150,
    Tag.BOTTLENECK: 150,
    Metric.OF_REGISTERS: 170,
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
    """A saved view, and the kind of page that its link opens."""

    key: str
    """The end of the tag's name; the link carries it."""
    name: str
    """The name in the UI's list of views."""
    state: Mapping[str, Any]
    """The state of the runs page."""
    mode: str = _TABLE
    """The kind of page: a table, charts, or artifacts side by side."""

    def tag(self, now_ms: int) -> str:
        """The value of the experiment's tag ``TAG + key``, which MLflow limits to 5 000 characters."""
        packed = zlib.compress(json.dumps(self.state, separators=(",", ":")).encode(), 9)
        state = "deflate;" + base64.b64encode(packed).decode()
        return json.dumps({"name": self.name, "createdAt": now_ms, "updatedAt": now_ms, "state": state})

    def link(self, page: str) -> str:
        """The address at which the UI shows the view.

        Args:
            page: the address of the experiment.
        """
        address = f"{page}/runs?workflowType=machine_learning&viewStateShareKey={self.key}"
        return address if self.mode == _TABLE else f"{address}&compareRunsMode={self.mode}"


def saved_views(sweep_id: str, tags: Mapping[str, str]) -> list[View]:
    """The views of a sweep, then that of all sweeps, that an experiment with these tags has; without their states."""
    views = [
        View(sweep_id, FASTEST_FIRST, {}),
        View(f"{sweep_id}-charts", CHARTS, {}, _CHARTS),
        View(f"{sweep_id}-rest", NOT_RANKED, {}),
    ]
    saved = [view for view in views if TAG + view.key in tags]
    return [*saved, View("matrix", ALL_SWEEPS, {})] if saved else []


def picture(run_id: str, name: str) -> str:
    """An artifact of a run as a picture in a description: an address relative to the UI's own."""
    return f"![{name}](get-artifact?path={name}&run_uuid={run_id})"


def page_list(links: Mapping[str, str]) -> str:
    """Pages of the UI as a list in a description, by addresses that hold wherever the UI is served.

    Args:
        links: what each page shows -> its link.
    """
    return "\n".join(f"- [{name}](#{link.partition('/#')[2]})" for name, link in links.items())


def run_name(axes: Mapping[str, str], first: Sequence[str] = ()) -> str:
    """The name of a cell's run. The UI cuts it off after 20 characters or so: distinguishing axes come ``first``."""
    names = dict.fromkeys([*(axis for axis in first if axis in AXES), *MAIN_AXES])
    return " ".join(in_words(axes, [axis for axis in names if axis in axes]))


def cells_of(sweep_id: str) -> str:
    """The filter that finds the cells of a sweep."""
    return f"{_CELLS} and tags.sweep_id = '{sweep_id}'"


def undrawable_axes(cells: Sequence[Mapping[str, str]], axes: Sequence[str]) -> list[str]:
    """The axes that have both numbers and words as values, such as threads=cores,1.

    The UI's parallel coordinates silently drop the cells with one of the two kinds.

    Args:
        cells: axis -> value, for each cell.
        axes: the axes to look at.
    """

    def is_number(text: str) -> bool:
        return text.replace(".", "", 1).isdigit()

    return [axis for axis in axes if len({is_number(cell[axis]) for cell in cells if axis in cell}) > 1]


def sweep_views(
    sweep_id: str, axes: Sequence[str], undrawn: Sequence[str], groups: Sequence[str], has_tables: bool
) -> dict[str, View]:
    """What each view of a sweep's ranked cells shows -> the view.

    Args:
        axes: the distinguishing axes; the settings among them are not params in MLflow and get no column.
        undrawn: those of the axes that parallel coordinates can't draw, see `undrawable_axes`.
        groups: the part before the slash of each name among the cells' metrics.
        has_tables: whether captures left tables.
    """
    key = sweep_id  # the links are long enough
    varying = [axis for axis in axes if axis in AXES]
    ranking = _state(f"{cells_of(sweep_id)} and {_RANKED}", _ranking(varying))
    charts = {**ranking, **_charts(varying, undrawn, groups)}
    charts_name = f"{sweep_id}: charts, right output only"
    sweep = {
        FASTEST_FIRST: View(key, f"{sweep_id}: fastest first, right output only", ranking),
        CHARTS: View(f"{key}-charts", charts_name, charts, _CHARTS),
    }
    if has_tables:
        # No state chooses a table: the UI opens the one that was logged first (itt/by_op.json), of the first ten cells.
        sweep["captured tables of the ten fastest cells, side by side"] = View(
            f"{key}-charts", charts_name, charts, _ARTIFACTS
        )
    return sweep


def unranked_view(sweep_id: str, axes: Sequence[str]) -> View:
    """The view of the cells that `sweep_views` leaves out, with the reasons."""
    reasons = {_column(Tag.QUALITY): 330, _column(Tag.FAILURE): 450}
    # The first mention puts the reasons before the other columns, the last one keeps their width.
    columns = _axes(axes) | reasons | _WIDTHS | reasons
    state = _state(f"{cells_of(sweep_id)} and tags.{Tag.RANKED} = 'no'", columns)
    return View(f"{sweep_id}-rest", f"{sweep_id}: wrong output or failed", state)


def experiment_view() -> View:
    """The view of the cells of all sweeps of an experiment, fastest first.

    Its sweeps vary different axes, so this view has a column for each axis that makes two cells comparable.
    """
    columns = _ranking((*MAIN_AXES, "batch_size", "instances"))
    name = "all sweeps: fastest first, right output only"
    return View("matrix", name, _state(f"{_CELLS} and {_RANKED}", columns))


def _axes(axes: Sequence[str]) -> dict[str, int]:
    return {f"params.`{axis}`": 160 if axis == "model" else 120 for axis in axes if axis in AXES}


def _ranking(axes: Sequence[str]) -> dict[str, int]:
    """The columns of a ranking; latency and speed-up come first, else many axes would push them out of sight."""
    first = {column: _WIDTHS[column] for column in (_P50_COLUMN, _column(Metric.SPEEDUP))}
    return first | _axes(axes) | _WIDTHS


def _state(condition: str, widths: Mapping[str, int]) -> dict[str, Any]:
    """The state of a runs page that is sorted by latency.

    Args:
        condition: the filter that chooses the rows.
        widths: column -> width in pixels, in the order shown.
    """
    return {
        "searchFilter": condition,
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
    """The charts of a page: our sections, open; below them, folded, those in which the UI puts all other metrics."""
    drawable = [axis for axis in axes if axis not in undrawn]
    parallel = {
        "type": "PARALLEL",
        "selectedParams": drawable,
        "selectedMetrics": [Metric.P50.value],
        "showAllRuns": False,
    }
    omission = f", without {', '.join(undrawn)}" if undrawn else ""
    # Section -> (cards per row, charts).
    own_sections: dict[str, tuple[int, list[dict[str, Any]]]] = {
        f"Axes against latency{omission}": (1, [parallel] if drawable else []),
        "Trade-offs": (
            2,
            [_scatter(Metric.P50, Metric.RSS_PEAK), _scatter(Metric.RELATIVE_ERROR, Metric.SAMPLES_PER_S)],
        ),
        "Median, tail and spread of latency": (3, [_bars(Metric.P50), _bars(Metric.P90), _bars(Metric.CV)]),
    }
    fixed = {"isReordered": False, "deleted": False, "isGenerated": False}
    sections = [
        {"uuid": name, "name": name, "display": True, "columns": columns, "cardHeight": 420} | fixed
        for name, (columns, charts) in own_sections.items()
        if charts
    ] + [{"uuid": name, "name": name, "display": False} | fixed for name in groups]
    cards = [
        {"uuid": f"{name} {n}", "metricSectionId": name, "deleted": False, "isGenerated": False} | chart
        for name, (_, charts) in own_sections.items()
        for n, chart in enumerate(charts)
    ]
    # The page counts as reordered, because the UI would sort the sections by name otherwise.
    return {"compareRunCharts": cards, "compareRunSections": sections, "isAccordionReordered": True}


def _scatter(x: Metric, y: Metric) -> dict[str, Any]:
    axes = {name: {"key": metric.value, "type": "METRIC"} for name, metric in (("xaxis", x), ("yaxis", y))}
    return {"type": "SCATTER", "runsCountToCompare": 100} | axes


def _bars(metric: Metric) -> dict[str, Any]:
    return {"type": "BAR", "metricKey": metric.value, "displayName": metric.value, "runsCountToCompare": 100}
