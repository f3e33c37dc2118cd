"""What a model returned, as plain containers of dense, real tensors: what can be copied, compared and described.

Models return dataclasses, mappings and objects of their own, numpy arrays, and sparse, nested, quantized or complex
tensors. All of them hold numbers, and none of these numbers may be left out of the comparison with the reference.
"""

from __future__ import annotations

import concurrent.futures
import functools
import inspect
import sys
import types
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import torch
from torch import nn

# Objects inside objects are followed this far, and no further than this many values: some lead to half of a program.
_DEPTH, _VALUES = 12, 100_000
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial)
_WITHOUT_NUMBERS = (str, bytes, type, Enum, nn.Module, torch.dtype, torch.device, torch.Size, types.ModuleType)


def plain(output: Any) -> Any:
    """An output as lists and dicts of dense tensors without complex numbers, which share its memory where they can.

    Python's own numbers count only where there is no tensor: a model may say how long it took, or how often it was
    called. Texts are left out.

    Raises:
        TypeError: a part of it is a promise of numbers, and no number: a future, a generator, a coroutine, a function,
            a tensor without values or of a class that computes when it is read.
    """
    opened = _Opener().open(output, "output")
    tensors, numbers = _without(opened, float), _without(opened, torch.Tensor)
    return tensors if _has_any(tensors) else _as_tensors(numbers)


class _Opener:
    """Looks into an output, however it refers to itself."""

    def __init__(self) -> None:
        self._path: set[int] = set()  # the objects around the one that is looked into
        self._values = 0

    def open(self, value: Any, name: str) -> Any:
        """The value as containers of tensors and floats."""
        if isinstance(value, torch.Tensor):
            return _dense(value, name)
        _refuse_promises(value, name)
        if isinstance(value, (bool, int, float, complex)):
            return _number(value)
        if value is None or isinstance(value, _WITHOUT_NUMBERS):
            return None
        if (array := _from_numpy(value)) is not None:
            return _dense(array, name)
        self._values += 1
        if len(self._path) > _DEPTH or self._values > _VALUES or id(value) in self._path:
            return None
        self._path.add(id(value))
        try:
            return self._open_parts(value, name)
        finally:
            self._path.remove(id(value))

    def _open_parts(self, value: Any, name: str) -> Any:
        if isinstance(value, Set):
            return None  # without an order: nothing in it has a counterpart in the reference
        if isinstance(value, Sequence):
            return [self.open(part, f"{name}[{number}]") for number, part in enumerate(value)]
        if isinstance(value, Mapping):
            return {key: self.open(part, f"{name}[{key!r:.40}]") for key, part in value.items()}
        attributes = _attributes(value)
        functions = [key for key, part in attributes.items() if isinstance(part, _FUNCTIONS)]
        opened = {key: self.open(part, f"{name}.{key}") for key, part in attributes.items() if key not in functions}
        if functions and not _has_any(opened):
            # With numbers in it, it is a result that has tools with it; without any it is a promise of them.
            _refuse_promises(attributes[functions[0]], f"{name}.{functions[0]}")
        return opened


def _attributes(value: Any) -> dict[str, Any]:
    """What an object holds that is no container."""
    if is_dataclass(value):
        return {field.name: getattr(value, field.name, None) for field in fields(value)}
    slots = {
        name: getattr(value, name, None)
        for base in type(value).__mro__
        for name in _names(base.__dict__.get("__slots__", ()))
        if not name.startswith("__")
    }
    return {**slots, **getattr(value, "__dict__", {})}


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _refuse_promises(value: Any, name: str) -> None:
    is_future = isinstance(value, (concurrent.futures.Future, torch._C.Future, *_FUNCTIONS))
    if is_future or isinstance(value, Iterator) or inspect.isawaitable(value) or inspect.isasyncgen(value):
        raise TypeError(
            f"forward() returned a {type(value).__name__} ({name}): its work is not done when forward() returns, so "
            "that it can't be timed; return tensors"
        )


def _dense(tensor: torch.Tensor, name: str) -> Any:
    """A tensor in the form in which it can be compared; a list of them for a nested one."""
    if tensor.is_nested:
        return [_dense(part, f"{name}[{number}]") for number, part in enumerate(tensor.unbind())]
    if tensor.device.type == "meta":
        raise TypeError(f"forward() returned a tensor on the device meta ({name}), which has no values; return tensors")
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        raise TypeError(
            f"forward() returned a {type(tensor).__name__} ({name}): a class of tensors with operators of its own may "
            "compute when it is read, so that it can't be timed; return plain tensors"
        )
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _from_numpy(value: Any) -> torch.Tensor | None:
    """An array or a number of numpy's as a tensor; None for anything else, and for arrays of texts and objects."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    try:
        return torch.as_tensor(numpy.asarray(value, order="C"))
    except TypeError:
        return None


def _number(value: complex) -> Any:
    if isinstance(value, complex):
        return [value.real, value.imag]
    try:
        return float(value)
    except OverflowError:
        return None


def _without(opened: Any, kind: type) -> Any:
    """A copy of nested containers in which None stands for each value of a kind."""
    if isinstance(opened, dict):
        return {key: _without(part, kind) for key, part in opened.items()}
    if isinstance(opened, list):
        return [_without(part, kind) for part in opened]
    return None if isinstance(opened, kind) else opened


def _has_any(opened: Any) -> bool:
    if isinstance(opened, (dict, list)):
        return any(map(_has_any, opened.values() if isinstance(opened, dict) else opened))
    return opened is not None


def _as_tensors(opened: Any) -> Any:
    if isinstance(opened, dict):
        return {key: _as_tensors(part) for key, part in opened.items()}
    if isinstance(opened, list):
        return [_as_tensors(part) for part in opened]
    return None if opened is None else torch.tensor(opened, dtype=torch.float64, device="cpu")
