"""The floating-point operations of torch's operators, by the shapes of their arguments: a product and its sum are two.

The formulas are those of torch.utils.flop_counter; operators that torch does not take apart before the dispatcher sees
them (``aten::linear``) are here as well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

Shape = Sequence[int]

# Operator, without namespace and overload -> the places of the two factors among its arguments.
_PRODUCTS = {
    "mm": (0, 1),
    "_int_mm": (0, 1),
    "bmm": (0, 1),
    "matmul": (0, 1),
    "addmm": (1, 2),
    "addbmm": (1, 2),
    "baddbmm": (1, 2),
    "_addmm_activation": (1, 2),
}
# The weights of these have the outputs first.
_LINEARS = ("linear", "_weight_int8pack_mm")
_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "convolution", "_convolution", "mkldnn_convolution")
_TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
_ATTENTION = ("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu")


def of_operator(name: str, shapes: Sequence[Shape], output: Shape | None = None) -> float | None:
    """The operations of one call.

    Args:
        name: the operator's name (``aten::conv2d``), with or without an overload.
        shapes: the shape of each argument, empty where the argument is no tensor.
        output: the shape of what it returned; None if that was not recorded, as by the profiler.

    Returns:
        The number of operations; a bias does not count. None for an operator whose number does not follow from these
        shapes, such as one whose weights are packed.
    """
    operator = name.partition("::")[2].partition(".")[0]
    try:
        if operator in _PRODUCTS:
            left, right = (shapes[place] for place in _PRODUCTS[operator])
            return _product(left, right)
        if operator in _LINEARS:
            inputs, weights = shapes[:2]
            return 2.0 * math.prod(inputs) * weights[0] if inputs[-1] == weights[1] else None
        if operator in _ATTENTION:
            query, key, value = shapes[:3]
            return 2.0 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
        if operator in _CONVOLUTIONS and output:
            return 2.0 * math.prod(output) * math.prod(shapes[1][1:])
        if operator in _TRANSPOSED:
            return 2.0 * math.prod(shapes[0]) * math.prod(shapes[1][1:])
    except (IndexError, ValueError):  # an argument that is no tensor, or packed
        pass
    return None


def _product(left: Shape, right: Shape) -> float | None:
    if not left or not right:
        return None
    rows, columns = (math.prod(left[:-1]), right[-1]) if len(right) > 1 else (math.prod(left[:-1]), 1)
    if len(right) > 2:  # a batch of matrices, of which the left factor may have a single one
        rows = left[-2] * max(math.prod(left[:-2]), math.prod(right[:-2])) if len(left) > 1 else math.prod(right[:-2])
    return 2.0 * rows * left[-1] * columns
