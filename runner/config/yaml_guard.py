"""How large a YAML file may be: measured before anything is built from it.

An alias stands for what it refers to and costs a few bytes in the file; OmegaConf makes a copy of it in each place, so
that ten lines can fill the memory. A matrix written out by hand has a tenth of what is allowed.
"""

from __future__ import annotations

import yaml

from runner.protocol.errors import RunnerError

MOST_BYTES = 1 << 18
MOST_NODES = 10_000
"""Nodes of one file, once its aliases are followed."""
DEEPEST = 32


def check(document: yaml.Node) -> None:
    """Refuse a document that is larger or nests deeper than any configuration, or whose aliases make it so.

    Raises:
        RunnerError: the message says which.
    """
    _size(document, 0, {})


def _size(node: yaml.Node, depth: int, sizes: dict[int, int]) -> int:
    """The number of nodes in this one, an alias counted as what it stands for."""
    if depth > DEEPEST:
        raise RunnerError(f"it nests more than {DEEPEST} levels deep, or refers to itself")
    if id(node) not in sizes:
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        # A mapping's children are pairs of key and value.
        nodes = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        sizes[id(node)] = 1 + sum(_size(child, depth + 1, sizes) for child in nodes)
    if sizes[id(node)] > MOST_NODES:
        raise RunnerError(f"it has more than {MOST_NODES} values once its aliases are followed")
    return sizes[id(node)]
