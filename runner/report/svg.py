"""The parts of a picture inside report.html: an SVG element written as text, its scales, and rows of ticks as images.

matplotlib took twenty seconds for the pictures of a hundred cells, and its import as long as the rest of a report.
Text stays text: searchable, small, in the reader's fonts.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from runner.report import style

# Points; the page stretches the picture to its own width.
WIDTH = 648.0
# The first is as wide as the widths below assume, the second is as wide and on most desktops.
_FONTS = "DejaVu Sans, Verdana, sans-serif"
# The mean width of a character over the size of its font.
_CHARACTER = 0.6
# Columns of a row of ticks: one is as wide as a tick.
_COLUMNS = 1200
# Opacities of a column in which so many ticks lie, as a palette of a PNG.
_SHADES = 16


def text_width(text: str, size: float) -> float:
    """The width of a text in points, about."""
    return _CHARACTER * size * len(text)


@dataclass(frozen=True)
class Scale:
    """A map from figures to points, linear or logarithmic."""

    low: float
    high: float
    start: float
    """The place of ``low``."""
    end: float
    """The place of ``high``."""
    is_log: bool = False

    @classmethod
    def around(cls, low: float, high: float, start: float, end: float, is_log: bool = False) -> Scale:
        """The scale that shows these figures with some room on both sides."""
        if is_log:
            room = (high / low) ** 0.04
            return cls(low / room, high * room, start, end, True)
        room = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        """The place of one figure."""
        return self.start + self.share(value) * (self.end - self.start)

    def share(self, value: float) -> float:
        """The place of one figure as a share of the scale."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def shares(self, values: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The places of many figures as shares of the scale."""
        array = np.asarray(values, dtype=np.float64)
        if self.is_log:
            return np.log(array / self.low) / math.log(self.high / self.low)
        return (array - self.low) / (self.high - self.low)

    def marks(self, most: int) -> list[float]:
        """Round figures on the scale, at most so many if it is linear."""
        if self.is_log:
            exponents = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            every = [digit * 10.0**exponent for exponent in exponents for digit in (1, 1.5, 2, 3, 5, 7)]
            inside = [mark for mark in every if self.low <= mark <= self.high]
            return inside[:: -(-len(inside) // (2 * most)) or 1]
        rough = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(factor * unit for factor in (1, 2, 2.5, 5, 10) if factor * unit >= rough * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


@dataclass
class Drawing:
    """An SVG element in the making, ``WIDTH`` points wide."""

    _parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, text: str, size: float, anchor: str = "start", more: str = "") -> None:
        """Write a text with its baseline at ``y``; ``more`` holds further attributes."""
        self._parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}"{more and " " + more}>'
            f"{escape(text)}</text>"
        )

    def path(self, path: str, color: str, width: float, opacity: float = 1.0) -> None:
        """Draw lines."""
        faint = "" if opacity == 1 else f' opacity="{opacity:g}"'
        self._parts.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{width:g}"{faint}/>')

    def line(self, points: Iterable[tuple[float, float]], color: str, width: float, opacity: float = 1.0) -> None:
        """Draw a line through these points."""
        self.path("M" + " ".join(f"{x:.1f} {y:.1f}" for x, y in points), color, width, opacity)

    def box(self, x: float, y: float, width: float, height: float, color: str) -> None:
        """Draw a filled rectangle."""
        self._parts.append(f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.2f}" height="{height:.1f}" fill="{color}"/>')

    def dot(self, x: float, y: float, radius: float, color: str) -> None:
        """Draw a filled circle."""
        self._parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{color}"/>')

    def ticks(self, shares: Sequence[float], x: float, y: float, size: tuple[float, float], color: str) -> None:
        """Draw a row with one tick at each share of its width; where ticks overlap they are darker."""
        width, height = size
        image = base64.b64encode(_row_of_ticks(shares, color)).decode()
        self._parts.append(
            f'<image x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" preserveAspectRatio="none" '
            f'href="data:image/png;base64,{image}"/>'
        )

    def across(self, scale: Scale, top: float, bottom: float, size: float, most: int, grid: bool = True) -> None:
        """Draw a horizontal axis: lines of a grid from ``top`` to ``bottom``, figures below them."""
        marks = scale.marks(most)
        if grid:
            self.path("".join(f"M{scale(mark):.1f} {top:.1f}V{bottom:.1f}" for mark in marks), style.FAINT_GREY, 0.8)
        self.path("".join(f"M{scale(mark):.1f} {bottom:.1f}v3" for mark in marks), style.BLACK, 0.8)
        self.line([(scale.start, bottom), (scale.end, bottom)], style.BLACK, 0.8)
        for mark in marks:
            self.text(scale(mark), bottom + 4 + size, f"{mark:.6g}", size, "middle")

    def upwards(self, scale: Scale, x: float, size: float, most: int) -> None:
        """Draw a vertical axis with figures to its left."""
        marks = scale.marks(most)
        self.path("".join(f"M{x:.1f} {scale(mark):.1f}h-3" for mark in marks), style.BLACK, 0.8)
        self.line([(x, scale.start), (x, scale.end)], style.BLACK, 0.8)
        for mark in marks:
            self.text(x - 5, scale(mark) + 0.35 * size, f"{mark:.6g}", size, "end")

    def element(self, height: float, described: str) -> str:
        """The element, as wide as its container, with a description for those who can't see it."""
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:.1f}" font-family="{_FONTS}"'
        return f'{head} role="img" aria-label="{escape(described)}">{"".join(self._parts)}</svg>'


def _row_of_ticks(shares: Sequence[float], color: str) -> bytes:
    """A PNG of one row of pixels (https://www.w3.org/TR/png-3/): the color, more opaque where more ticks lie."""
    columns = np.clip(np.asarray(shares) * _COLUMNS, 0, _COLUMNS - 1).astype(np.int64)
    counts = np.bincount(columns, minlength=_COLUMNS)
    # A tick alone is seen well when it is one of few.
    ink = 0.9 if len(columns) < 50 else 0.5
    opacity = bytes(round(255 * (1 - (1 - ink) ** count)) for count in range(_SHADES))
    row = b"\0" + np.minimum(counts, _SHADES - 1).astype(np.uint8).tobytes()
    header = struct.pack(">IIBBBBB", _COLUMNS, 1, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", bytes.fromhex(color[1:]) * _SHADES),
        (b"tRNS", opacity),
        (b"IDAT", zlib.compress(row, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
