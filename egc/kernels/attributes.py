"""Attributes of graph nodes by kind: the operator table (egc.ir.ops) says which attribute has which."""

from __future__ import annotations

from typing import Any

from egc.ir.dims import Dim
from egc.ir.graph import Node


def int_of(node: Node, name: str) -> int:
    """An attribute of kind ``int`` or ``bool``."""
    value: Any = node.attr(name)
    return int(value)


def float_of(node: Node, name: str) -> float:
    """An attribute of kind ``float``."""
    value: Any = node.attr(name)
    return float(value)


def ints_of(node: Node, name: str) -> tuple[int, ...]:
    """An attribute of kind ``ints`` or ``perm``."""
    value: Any = node.attr(name)
    return tuple(value)


def dims_of(node: Node, name: str) -> tuple[Dim, ...]:
    """An attribute of kind ``dims``."""
    value: Any = node.attr(name)
    return tuple(value)
