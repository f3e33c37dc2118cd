"""Pictures of the report as text: scales with round figures, and ticks of which none is lost."""

from __future__ import annotations

import base64
import re
import struct
import xml.etree.ElementTree as ET
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.report.svg import Drawing, Scale

SVG = "{http://www.w3.org/2000/svg}"
FIGURES = st.floats(1e-3, 1e6)


@given(st.lists(FIGURES, min_size=1, max_size=20), st.booleans(), st.integers(2, 8))
def test_a_scale_shows_every_figure_and_its_marks_are_on_it(values: list[float], is_log: bool, most: int) -> None:
    scale = Scale.around(min(values), max(values), 10, 110, is_log and min(values) < max(values))
    assert all(10 <= scale(value) <= 110 for value in values)
    assert all(scale(value) == pytest.approx(10 + 100 * scale.shares([value])[0]) for value in values)
    marks = scale.marks(most)
    assert marks == sorted(set(marks))
    assert len(marks) <= 2 * most + 1
    assert all(9.99 <= scale(mark) <= 110.01 for mark in marks)


@pytest.mark.parametrize(
    ("low", "high", "marks"), [(0.0, 10.0, [0, 2, 4, 6, 8, 10]), (9.7, 12.4, [10, 10.5, 11, 11.5, 12]), (5, 5, [5])]
)
def test_marks_are_round_figures(low: float, high: float, marks: list[float]) -> None:
    found = Scale(low, high or 1, 0, 1).marks(6) if high > low else Scale.around(low, high, 0, 1).marks(1)
    assert found == pytest.approx(marks)


def row_of(shares: list[float]) -> tuple[list[int], bytes]:
    """(number of ticks in each column, up to 15; opacity of each such number) in the image of a row."""
    drawing = Drawing()
    drawing.ticks(shares, 0, 0, (100, 10), "#0072B2")
    image = ET.fromstring(drawing.element(20, "ticks")).find(f"{SVG}image")  # noqa: S314 - our own text
    assert image is not None
    data = base64.b64decode(image.attrib["href"].partition("base64,")[2])
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, place = {}, 8
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        kind, body = data[place + 4 : place + 8], data[place + 8 : place + 8 + size]
        assert struct.unpack(">I", data[place + 8 + size : place + 12 + size]) == (zlib.crc32(kind + body),)
        chunks[kind], place = body, place + 12 + size
    assert struct.unpack(">II", chunks[b"IHDR"][:8])[1] == 1
    return list(zlib.decompress(chunks[b"IDAT"])[1:]), chunks[b"tRNS"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_every_tick_is_in_its_row(shares: list[float]) -> None:
    columns, opacity = row_of(shares)
    assert sum(columns) == len(shares) or max(columns) == 15
    assert all(columns[min(int(share * len(columns)), len(columns) - 1)] for share in shares)
    assert list(opacity) == sorted(opacity)
    assert opacity[0] == 0
    assert opacity[1] > 100


def test_texts_stay_text_whatever_is_in_them() -> None:
    drawing = Drawing()
    drawing.text(1, 2, '<b>&"', 9)
    (text,) = ET.fromstring(drawing.element(10, 'a "picture"')).iter(f"{SVG}text")  # noqa: S314 - as above
    assert text.text == '<b>&"'
    assert not re.search(r"<b>", drawing.element(10, ""))
