"""The floating-point operations of oneDNN's primitives, by their problem descriptors: a product and its sum are two.

Format: oneDNN Developer Guide, "Verbose Mode", ``problem_desc``; its letters are benchdnn's (tests/benchdnn/doc).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_CONVOLUTIONS = ("convolution", "deconvolution")
_LETTERS = re.compile(r"([a-z]+?)(\d{1,9})(?=[a-z_:*]|$)")
_MATRICES = re.compile(r"(\d{1,9}(?:x\d{1,9}){1,11}):(\d{1,9}(?:x\d{1,9}){1,11})")


def of_primitive(kind: str, shape: str) -> float | None:
    """The operations of one execution.

    Args:
        kind: the primitive's kind (``convolution``).
        shape: its problem descriptor, like ``mb2_ic3oc8_ih16oh16kh3sh1dh0ph1_iw16ow16kw3sw1dw0pw1`` or
            ``12x128x64:12x64x128``.

    Returns:
        The number of operations, that of effective ones: padding counts as data, a bias and post-ops do not count.
        None for a kind or a descriptor that is not known.
    """
    size = {name: int(number) for name, number in _LETTERS.findall(shape)}
    if kind == "matmul":
        if {"m", "n", "k"} <= size.keys():  # oneDNN 2.0: b3m8n24k16
            return 2.0 * size.get("b", 1) * size["m"] * size["n"] * size["k"]
        return _product(shape)
    if not {"mb", "ic", "oc"} <= size.keys():
        return None
    if kind == "inner_product":
        return 2.0 * size["mb"] * size["oc"] * size["ic"] * _volume(size, "i")
    if kind in _CONVOLUTIONS and "kw" in size:
        # A deconvolution spreads each input over the window, a convolution gathers each output from it.
        places = _volume(size, "o" if kind == "convolution" else "i")
        return 2.0 * size["mb"] * size["oc"] * size["ic"] / size.get("g", 1) * places * _volume(size, "k")
    return None


def _volume(size: Mapping[str, int], letter: str) -> int:
    """Depth, height and width together of input (i), output (o) or window (k); those that are not printed are 1."""
    return math.prod(size.get(f"{letter}{axis}", 1) for axis in "dhw")


def _product(shape: str) -> float | None:
    matrices = _MATRICES.match(shape)
    if matrices is None:
        return None
    left, right = ([int(size) for size in text.split("x")] for text in matrices.groups())
    if len(left) != len(right):
        return None
    batch = math.prod(max(a, b) for a, b in zip(left[:-2], right[:-2], strict=True))
    return 2.0 * batch * left[-2] * left[-1] * right[-1]
