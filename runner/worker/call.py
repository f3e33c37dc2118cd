"""A call of a model: its example inputs, in whatever form the user's callable returns them and the model takes them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from runner.worker import outputs


@dataclass(frozen=True)
class Call:
    """The positional and keyword arguments of ``module(...)``; tensors may be nested in tuples, lists and dicts."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None
    samples: int | None = None
    """The number of samples in the arguments, as the model's callable counts them; None if it does not say."""

    @classmethod
    def of(cls, inputs: Any, samples: Any = None) -> Call:
        """Make a call from the inputs that a model's callable returns: a tensor, a tuple (or list) of positional
        arguments, or a dict of keyword arguments.

        Args:
            inputs: the second value that the callable returns.
            samples: the third value, which is optional: how many samples the inputs hold.

        Raises:
            TypeError: the inputs are none of these, or hold no tensor; the number of samples is not a whole number.
        """
        if samples is not None and (not isinstance(samples, int) or samples < 1):
            raise TypeError(
                f"the third value that a model's callable returns is the number of samples in its inputs, a whole "
                f"number, not {samples!r:.40}"
            )
        if isinstance(inputs, torch.Tensor):
            call = cls((inputs,), samples=samples)
        elif isinstance(inputs, Mapping):
            call = cls((), dict(inputs), samples)
        elif isinstance(inputs, (tuple, list)):
            call = cls(tuple(inputs), samples=samples)
        else:
            raise TypeError(f"example inputs must be a tensor, a tuple or a dict, not {type(inputs).__name__}")
        if not call.tensors():
            raise TypeError("example inputs hold no tensor")
        return call

    def __call__(self, module: nn.Module) -> Any:
        """Run the module once."""
        return module(*self.args, **self.kwargs) if self.kwargs else module(*self.args)

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor among the arguments, in order."""
        return flat((self.args, dict(self.kwargs or {})))

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Call:
        """A copy of the call, in which ``change`` has replaced every tensor."""
        args, kwargs = pytree.tree_map_only(torch.Tensor, change, (self.args, dict(self.kwargs or {})))
        return Call(tuple(args), kwargs, self.samples)

    def lengths(self) -> list[int]:
        """How many samples each part of the arguments holds that holds one per entry: lists of tensors (or of dicts or
        tuples of them), and packed sequences."""
        return list(_lengths((self.args, dict(self.kwargs or {})), is_argument=False))

    def with_tensors(self, tensors: Sequence[torch.Tensor]) -> Call:
        """A copy of the call with other tensors, in the order of `tensors`."""
        others = iter(tensors)
        return self.map(lambda _: next(others))

    def positional(self, module: nn.Module) -> tuple[Any, ...]:
        """All arguments by position, for tools that take no keywords; arguments that were left out get their defaults.

        Raises:
            TypeError: an argument can only be given by keyword.
        """
        if not self.kwargs:
            return self.args
        signature = inspect.signature(module.forward)
        bound = signature.bind(*self.args, **self.kwargs)
        last = max(list(signature.parameters).index(name) for name in bound.arguments)
        bound.apply_defaults()
        by_keyword = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
        names = list(signature.parameters)[: last + 1]
        for name in names:
            if signature.parameters[name].kind in by_keyword and bound.arguments[name]:
                raise TypeError(
                    f"forward() of {type(module).__name__} takes {name!r} by keyword only, which IPEX and torch.ao's "
                    "FX can't do; make it a named, positional argument of forward()"
                )
        return tuple(bound.arguments[name] for name in names if signature.parameters[name].kind not in by_keyword)


def copied(output: Any) -> Any:
    """A copy of what a model returned, as `outputs.plain` has it, which nothing that runs later changes.

    Raises:
        TypeError: see `outputs.plain`.
    """
    return pytree.tree_map_only(torch.Tensor, torch.clone, outputs.plain(output))


def is_same(output: Any, copy: Any) -> bool:
    """Whether a model's output holds the same values as when it was copied."""
    return is_equal(flat(outputs.plain(output)), flat(copy))


def is_equal(some: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    """Whether as many tensors hold the same values; a nan is the same as a nan."""
    return len(some) == len(others) and all(map(_is_equal, some, others))


def _is_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.layout != torch.strided or b.layout != torch.strided:
        return a.layout == b.layout and torch.equal(a.to_dense(), b.to_dense())
    return torch.equal(a, b) or (a.shape == b.shape and torch.equal(a[a == a], b[b == b]))


def places(output: Any) -> list[str]:
    """What each tensor of `flat` is called: ``output``, ``output['score']``, ``output[0][1]``."""
    tensors = flat(output)
    names = list(_places(output, "output"))
    if len(names) == len(tensors):
        return names
    return [f"tensor {number + 1} of the output" for number in range(len(tensors))]


def _places(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, torch.Tensor):
        yield name
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _places(inner, f"{name}[{key!r:.40}]")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, inner in enumerate(value):
            yield from _places(inner, f"{name}[{index}]")


def _lengths(value: Any, is_argument: bool = True) -> Iterator[int]:
    if isinstance(value, PackedSequence):
        yield int(value.batch_sizes[0])  # how many sequences have a first step: all of them
    elif isinstance(value, (list, tuple, Mapping)):
        if is_argument and isinstance(value, list) and flat(value):
            yield len(value)
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _lengths(inner)


def flat(value: Any) -> list[torch.Tensor]:
    """Every tensor in a nested value, such as a model's output or its arguments, in order."""
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
