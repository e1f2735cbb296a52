"""Reading egglog's tables back into plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from egc.egraph.snapshot import ENode
from egc.egraph.vocabulary import CONSTRUCTORS, NAME, Constructor
from egc.ir.dims import Dim, parse_dim
from egc.ir.scalar import BY_CONSTRUCTOR

_LEAVES = ("Input", "Const", "Splat")
# The constructors of tensor terms that e-nodes are read from.
KNOWN = frozenset((*_LEAVES, *CONSTRUCTORS, "Output"))
ATTRIBUTES = frozenset(("i64", "f64", "String", "bool", "IVec", "DVec", "Dim", "Perm", "Fn"))
DECODED = ATTRIBUTES | {"T", "Multi", "TVec"}  # the sorts that Reader.decode knows


class Reader:
    """One frozen state of an e-graph: decodes values by sort, with every decoded value cached."""

    def __init__(self, egraph: Any) -> None:
        self.egraph = egraph
        self.functions: Mapping[str, Any] = egraph.freeze().functions
        self._caches: dict[str, dict[Any, Any]] = {}
        self._dims: dict[Any, Dim] = {}
        for row in self.rows("I"):
            self._dims[row.output] = egraph.value_to_i64(row.inputs[0])
        for row in self.rows("Sym"):
            self._dims[row.output] = parse_dim(egraph.value_to_string(row.inputs[0]))
        self._perms = {row.output: self.decode("IVec", row.inputs[0]) for row in self.rows("P")}
        self._fns = {row.output: fn.name for name, fn in BY_CONSTRUCTOR.items() for row in self.rows(name)}
        self._numbers: dict[Any, int] = {}

    def rows(self, function: str) -> list[Any]:
        """The rows of a table; none where it does not exist."""
        table = self.functions.get(function)
        return [] if table is None else table.rows

    def number(self, value: Any) -> int:
        """The number of an e-class of sort T or Multi, in order of first sight."""
        return self._numbers.setdefault(value, len(self._numbers))

    def decode(self, sort: str, value: Any) -> Any:
        """A value of an attribute sort as Python data."""
        cache = self._caches.setdefault(sort, {})
        if value not in cache:
            cache[value] = self._decoder(sort)(value)
        return cache[value]

    def _decoder(self, sort: str) -> Callable[[Any], Any]:
        egraph = self.egraph
        match sort:
            case "i64":
                return egraph.value_to_i64
            case "f64":
                return egraph.value_to_f64
            case "String":
                return egraph.value_to_string
            case "bool":
                return egraph.value_to_bool
            case "IVec":
                return lambda v: tuple(self.decode("i64", item) for item in egraph.value_to_vec(v))
            case "DVec":
                return lambda v: tuple(self._dims[item] for item in egraph.value_to_vec(v))
            case "TVec":
                return lambda v: tuple(self.number(item) for item in egraph.value_to_vec(v))
            case "T" | "Multi":
                return self.number
            case "Dim":
                return self._dims.__getitem__
            case "Perm":
                return self._perms.__getitem__
            case "Fn":
                return self._fns.__getitem__
        raise KeyError(f"no attribute sort {sort}")

    @cached_property
    def classes(self) -> dict[int, list[ENode]]:
        """Every e-class with its e-nodes, rows that a rule subsumed left out where others remain."""
        classes: dict[int, list[ENode]] = {}
        for row in self.rows(NAME):
            classes.setdefault(self.number(row.output), [])
        for _, row, eclass, enode in self.entries:
            if not row.subsumed:
                classes.setdefault(eclass, []).append(enode)
        return classes

    @cached_property
    def entries(self) -> list[tuple[str, Any, int, ENode]]:
        """Every row of a tensor constructor: the constructor, the row, its e-class and the e-node that it
        is."""
        return [
            (name, row, self.number(row.output), self.node(name, row.inputs))
            for name in (*_LEAVES, *CONSTRUCTORS, "Output")
            for row in self.rows(name)
        ]

    def node(self, name: str, inputs: list[Any]) -> ENode:
        """The e-node of a constructor applied to raw values."""
        if name in _LEAVES:
            return self._leaf(name, inputs)
        if name == "Output":
            return ENode("output", (self.number(inputs[0]),), (("index", self.decode("i64", inputs[1])),))
        return self.enode(CONSTRUCTORS[name], inputs)

    def enode(self, constructor: Constructor, inputs: list[Any]) -> ENode:
        """The e-node of one row of a constructor's table."""
        children: list[int] = []
        attrs: list[tuple[str, Any]] = []
        for (name, sort), value in zip(constructor.args, inputs, strict=False):
            if name == "operand":
                children.append(self.number(value))
            elif name == "operands":
                children.extend(self.decode("TVec", value))
            else:
                attrs.append((name, self.decode(sort, value)))
        return ENode(constructor.op, tuple(children), tuple(attrs))

    def _leaf(self, name: str, inputs: list[Any]) -> ENode:
        text = self.decode("String", inputs[0])
        match name:
            case "Input":
                return ENode("input", (), (("name", text),))
            case "Const":
                return ENode("const", (), (("digest", text),))
        return ENode("splat", (), (("dtype", text), ("value", self.decode("f64", inputs[1]))))
