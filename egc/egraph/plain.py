"""Encoding without an e-graph: the terms that :mod:`encode` writes, as the e-nodes that they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from egc.egraph.snapshot import ENode
from egc.egraph.vocabulary import CONSTRUCTORS, NAME
from egc.ir.dims import Dim

_LEAF_ATTRS = {"Input": ("name",), "Const": ("digest",), "Splat": ("dtype", "value")}


class PlainTerms:
    """Stands in for :class:`egc.egraph.terms.Terms`: a term becomes its e-class, and its e-node is noted.

    ``roots`` are the e-classes of the model's values and ``eclass_of`` those of all e-nodes. ``enodes`` are
    the e-nodes met, ``values`` the pairs of a value's ``Id`` and the e-node that computes it.
    """

    def __init__(self, roots: Mapping[str, int], eclass_of: Mapping[ENode, int]) -> None:
        self._roots = tuple(roots.values())  # in the order of their Ids
        self._eclass_of = eclass_of
        self.enodes: dict[ENode, None] = {}
        self.values: list[tuple[int, ENode]] = []
        self._last: ENode | None = None

    def call(self, name: str, *args: Any) -> Any:
        """The e-class of a term, or, for the relation ``value``, the arguments."""
        if name == NAME:
            return _Named(self._roots[args[0]], args[0])
        if name == "value":
            return args
        if name in _LEAF_ATTRS:
            return self._note(ENode(name.lower(), (), tuple(zip(_LEAF_ATTRS[name], args, strict=True))))
        if name == "Output":
            return self._note(ENode("output", (int(args[0]),), (("index", args[1]),)))
        constructor = CONSTRUCTORS[name]
        children: list[int] = []
        attrs: list[tuple[str, Any]] = []
        for (argument, _), value in zip(constructor.args, args, strict=False):
            if argument == "operand":
                children.append(int(value))
            elif argument == "operands":
                children += map(int, value)
            else:
                attrs.append((argument, value))
        return self._note(ENode(constructor.op, tuple(children), tuple(attrs)))

    def _note(self, enode: ENode) -> int:
        self.enodes[enode] = None
        self._last = enode
        return self._eclass_of[enode]

    def literal(self, value: Any) -> Any:
        """A literal."""
        return value

    def vector(self, items: Sequence[Any]) -> tuple[Any, ...]:
        """A vector."""
        return tuple(items)

    def dims(self, values: Iterable[Dim]) -> tuple[Dim, ...]:
        """Extents."""
        return tuple(values)

    def fn(self, name: str) -> str:
        """A scalar function."""
        return name

    def attr(self, sort: str, value: Any) -> Any:
        """An attribute."""
        match sort:
            case "IVec" | "DVec" | "Perm":
                return tuple(value)
            case "f64":
                return float(value)
        return value

    def union(self, left: Any, right: Any) -> None:
        """The naming of a part of a term."""
        self._value(left)

    def assert_(self, row: Any) -> None:
        """The naming of a value."""
        self._value(row[0])

    def _value(self, name: _Named) -> None:
        assert self._last is not None, "a term is built before it is named"
        self.values.append((name.id, self._last))


class _Named(int):
    """An e-class that was reached through a value's ``Id``."""

    id: int

    def __new__(cls, eclass: int, number: int) -> _Named:
        named = super().__new__(cls, eclass)
        named.id = number
        return named
