"""A captured iteration of a few cells as a picture: time from left to right, each range below its caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.capture.itt import STEP
from runner.capture.steps import UNLIKE_FACTOR
from runner.protocol import stored
from runner.protocol.stored import FormatError
from runner.report import style

# Categories of the profiler's events that are not ranges of the model.
_NOT_WORK = ("python_function", "Trace", "overhead")

# Microseconds: no trace is thirty years long.
_MOST_US = 1e15
_IDS = (int, str)
# Deeper ranges, and ranges beyond this many in all, are not drawn: a picture has limited room.
_DEEPEST, _MOST_DRAWN = 40, 5000

# Shares of the longest iteration: narrower ranges are drawn without their name, or not at all.
_LABEL_SHARE, _DRAWN_SHARE = 0.05, 5e-4
# Names with most time of their own have a color, the others are grey.
_COLORS = (style.ORANGE, style.SKY, style.GREEN, style.YELLOW, style.BLUE, style.VERMILION, style.PURPLE)
_STEP_COLOR, _OTHER_COLOR = style.LIGHT_GREY, style.DARK_GREY

# (thread, depth, start in ms, length in ms, name)
TraceRange = tuple[int, int, float, float, str]


def middle_step(events: Sequence[dict[str, Any]]) -> list[TraceRange]:
    """(thread, depth, start in ms, length in ms, name) of the ranges of the ``step_i`` of median length.

    Threads are numbered from 0, the one that runs the steps; depth 0 is the step, or a range of another thread.
    """
    # Only those of the profiler's events that ITT has as well.
    complete = [e for e in events if e.get("ph") == "X" and e.get("cat") not in _NOT_WORK]
    steps = [event for event in complete if STEP.fullmatch(event["name"])]
    if not steps:
        return []
    middle = sorted(steps, key=lambda event: event["dur"])[(len(steps) - 1) // 2]
    begin, end = middle["ts"], middle["ts"] + middle["dur"]
    inside = [event for event in complete if begin <= event["ts"] and event["ts"] + event["dur"] <= end + 1e-3]
    threads = {middle["tid"]: 0}
    open_until: dict[int, list[float]] = {}
    ranges: list[TraceRange] = []
    for event in sorted(inside, key=lambda event: (event["ts"], -event["dur"])):
        thread = threads.setdefault(event["tid"], len(threads))
        stack = open_until.setdefault(thread, [])
        while stack and stack[-1] <= event["ts"] + 1e-3:
            stack.pop()
        ranges.append((thread, len(stack), (event["ts"] - begin) / 1e3, event["dur"] / 1e3, event["name"]))
        stack.append(event["ts"] + event["dur"])
    return ranges


def read(path: Path) -> list[dict[str, Any]]:
    """The complete events ("X") of a trace, gzipped or not.

    Raises:
        FormatError: it can't be read.
    """
    packed = path.suffix == ".gz"
    try:
        text = stored.read_gzip(path).decode() if packed else stored.read_text(path)
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} can't be read: it is not UTF-8") from error
    trace = stored.parse_json(path, text)
    events = trace.get("traceEvents") if isinstance(trace, dict) else None
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise FormatError(f"{path} can't be read: it is not a list of trace events")
    complete = [event for event in events if event.get("ph") == "X"]
    for event in complete:
        figures = all(type(event.get(key)) in (int, float) and abs(event[key]) < _MOST_US for key in ("ts", "dur"))
        if not figures or event["dur"] < 0 or type(event.get("name")) is not str or type(event.get("tid")) not in _IDS:
            raise FormatError(f"{path} can't be read: one of its trace events is torn")
    return complete


@dataclass(frozen=True)
class TracedCell:
    """A cell of which a captured iteration can be drawn."""

    name: str
    trace: Path
    """The file of ITT's timeline, or the gzipped trace of PyTorch's profiler, which is named in the cell's title."""
    p50_ms: float | None
    """The median of the timed iterations, to set the captured one against; None behind a server."""
    disturbed: str = ""
    """Why its captured iterations are unlike the timed ones; empty if they are like them."""

    def heading(self, captured_ms: float) -> str:
        """The title of its picture: which iteration it is."""
        source = "" if self.trace.suffix == ".json" else " (by PyTorch's profiler)"
        times = f"an iteration of {captured_ms:.4g} ms"
        timed = "" if self.p50_ms is None else f", the timed ones {self.p50_ms:.4g} ms (median)"
        return f"{self.name}{source}: {times}{timed}"

    def why_not_drawn(self, captured_ms: float) -> str:
        """Why the iteration is not drawn as if it were one of the timed ones; empty if it is."""
        if self.disturbed or self.p50_ms is None or captured_ms <= UNLIKE_FACTOR * self.p50_ms:
            return self.disturbed
        return f"{captured_ms:.4g} ms, the timed ones {self.p50_ms:.4g} ms (median)"


def draw(cells: Sequence[TracedCell], file: Path, title: str) -> list[str]:
    """Write an image of a captured iteration per cell, below each other on one scale; nothing without any.

    Returns a sentence per cell that has a trace and is not drawn.
    """
    file.unlink(missing_ok=True)
    steps, left_out = _middle_steps(cells)
    if not steps:
        return left_out
    longest = max(length for _, ranges in steps for _, _, _, length, _ in ranges)
    steps = [(name, [it for it in ranges if it[3] > _DRAWN_SHARE * longest][:_MOST_DRAWN]) for name, ranges in steps]
    colors = _colors([it for _, ranges in steps for it in ranges])
    heights = [len(_rows(ranges)) for _, ranges in steps]
    plt = style.pyplot()
    figure, panels = plt.subplots(
        len(steps),
        1,
        figsize=(15, 1.4 + sum(0.28 * height + 0.7 for height in heights)),
        squeeze=False,
        sharex=True,
        gridspec_kw={"height_ratios": [height + 1.5 for height in heights]},
    )
    figure.set_layout_engine("constrained")
    for axes, (name, ranges) in zip(panels[:, 0], steps, strict=True):
        _draw_panel(axes, name, ranges, longest, colors)
    panels[-1, 0].set_xlabel("ms from the beginning of the iteration; ranges of torch, IPEX and oneDNN")
    _add_legend(figure, colors)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.savefig(file, dpi=110)
    plt.close(figure)
    return left_out


def _middle_steps(cells: Sequence[TracedCell]) -> tuple[list[tuple[str, list[TraceRange]]], list[str]]:
    """The heading and the iteration of median length of each cell that has a trace with one like the timed ones.

    The second value has a sentence for each cell that has another.
    """
    steps, left_out = [], []
    for cell in cells:
        if cell.trace.exists():
            ranges = [it for it in middle_step(read(cell.trace)) if it[0] < _DEEPEST and it[1] < _DEEPEST]
            length_ms = max((length for _, _, _, length, _ in ranges), default=0.0)
            if ranges and (why := cell.why_not_drawn(length_ms)):
                left_out.append(f"{cell.name}: the captured iteration was disturbed; not shown ({why})")
            elif ranges:
                steps.append((cell.heading(length_ms), ranges))
    return steps, left_out


def _draw_panel(axes: Any, name: str, ranges: Sequence[TraceRange], longest: float, colors: Mapping[str, str]) -> None:
    """Draw one cell's iteration on axes of matplotlib."""
    row = _rows(ranges)
    for thread, depth, start, length, text in ranges:
        y = row[thread, depth]
        color = _STEP_COLOR if STEP.fullmatch(text) else colors.get(text, _OTHER_COLOR)
        axes.barh(y, length, left=start, height=0.92, color=color, edgecolor="white", linewidth=0.3)
        if length > _LABEL_SHARE * longest:
            fitting = text[: int(170 * length / longest)]
            axes.text(start + length / 2, y, fitting, ha="center", va="center", fontsize=7, clip_on=True)
    threads = sorted({thread for thread, _ in row})
    labels = ["iteration and operators" if thread == 0 else f"thread {thread}" for thread in threads]
    axes.set_yticks([row[thread, 0] for thread in threads], labels, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, longest)
    axes.set_title(name, loc="left", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _add_legend(figure: Any, colors: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    patches = [Patch(color=color, label=name) for name, color in [*colors.items(), ("others", _OTHER_COLOR)]]
    figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize=8, frameon=False)


def _rows(ranges: Sequence[TraceRange]) -> dict[tuple[int, int], int]:
    """(thread, depth) -> row of the picture, from the top."""
    return {key: row for row, key in enumerate(sorted({(thread, depth) for thread, depth, *_ in ranges}))}


def _colors(ranges: Sequence[TraceRange]) -> dict[str, str]:
    """Name -> color, for the names with most time of their own."""
    own: dict[str, float] = {}
    above: dict[tuple[int, int], str] = {}
    for thread, depth, _, length, name in ranges:  # in order of their starts: the caller comes first
        above[thread, depth] = name
        own[name] = own.get(name, 0.0) + length
        if depth:
            own[above[thread, depth - 1]] -= length
    most = sorted((name for name in own if not STEP.fullmatch(name)), key=lambda name: -own[name])
    return dict(zip(most, _COLORS, strict=False))
