"""How graph operators and egglog constructors correspond.

Every constructor of ``rules/prelude.egg`` that stands for an operator has one entry here: the operator and,
argument by argument, what it carries. ``map`` has a constructor for each number of operands; ``concat`` is
binary and nests to the left; operators with several results have the sort
``Multi`` and are read through ``Output``.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from egc.ir.ops import OPS

NAME = "Id"  # names a value of the model
SORT_OF_KIND: Mapping[str, str] = {
    "int": "i64",
    "float": "f64",
    "str": "String",
    "bool": "bool",
    "ints": "IVec",
    "dims": "DVec",
    "perm": "Perm",
    "fn": "Fn",
}


class Constructor(Struct, frozen=True):
    """A constructor of tensor terms: ``args`` are pairs of (attribute name or "operand", sort)."""

    name: str
    op: str
    args: tuple[tuple[str, str], ...]
    multi: bool = False

    @property
    def attrs(self) -> tuple[tuple[str, str], ...]:
        """The attribute arguments in the operator's order."""
        return tuple(arg for arg in self.args if arg[0] != "operand")


_SPECIAL_NAMES = {"dim": "DimOf"}
_NOT_DIRECT = ("map", "concat", "host", "topk")


def _direct(op: str) -> Constructor:
    entry = OPS[op]
    operands = (("operand", "T"),) * entry.arity[0]
    attrs = tuple((name, SORT_OF_KIND[kind]) for name, kind in entry.attrs)
    return Constructor(_SPECIAL_NAMES.get(op, entry.constructor), op, (*operands, *attrs))


def _table() -> dict[str, Constructor]:
    entries = [_direct(op) for op in OPS if op not in _NOT_DIRECT]
    for n in (1, 2, 3):
        entries.append(Constructor(f"Map{n}", "map", (("fn", "Fn"), *((("operand", "T"),) * n))))
    entries.append(Constructor("Concat", "concat", (("operand", "T"), ("operand", "T"), ("axis", "i64"))))
    topk = tuple((name, SORT_OF_KIND[kind]) for name, kind in OPS["topk"].attrs)
    entries.append(Constructor("Topk", "topk", (("operand", "T"), *topk), multi=True))
    entries.append(
        Constructor("Host", "host", (("operands", "TVec"), ("node", "String"), ("types", "String")), True)
    )
    return {entry.name: entry for entry in entries}


CONSTRUCTORS: Mapping[str, Constructor] = _table()


def constructor_of(op: str, operands: int) -> Constructor:
    """The constructor for an operator applied to ``operands`` operands."""
    if op == "map":
        return CONSTRUCTORS[f"Map{operands}"]
    if op == "concat":
        return CONSTRUCTORS["Concat"]
    if op in ("host", "topk"):
        return CONSTRUCTORS[op.capitalize()]
    return CONSTRUCTORS[_SPECIAL_NAMES.get(op, OPS[op].constructor)]
