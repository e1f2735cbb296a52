"""Scalar expressions: what one element of a kernel's stage computes.

    Expr   ::= Const value dtype        a literal
             | Index dim                the value of an index expression, int64
             | Load buffer [Index…]     an element of a buffer; where a guard fails, `other`
             | Call fn Expr…            a function of egc.ir.scalar
             | Cast Expr dtype
             | Acc dtype                in a stage's result: the finished reduction
    Index  ::= dim                      a polynomial over axis names and dim names (egc.ir.dims), or
             | Expr                     an int64 expression, for indirect access (gather, scatter)
    Guard  ::= (dim, extent)            holds where 0 <= dim < extent

Expressions are immutable and hashable. The text form is Python's expression syntax and parses back:
``max(add(acc, b[co]), 0.0)``, ``x[n, h + kh - 1, c] if (h + kh - 1 < 56) else 0.0``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, TypeAlias

from msgspec import Struct

from egc.ir.dims import Dim, SymDim, substitute, symbols_of
from egc.ir.scalar import FUNCTIONS, result_dtype


class Const(Struct, frozen=True):
    """A literal of ``dtype``."""

    value: int | float | bool
    dtype: str

    def __str__(self) -> str:
        text = repr(self.value)
        if isinstance(self.value, float) and self.value != self.value:
            text = "nan"
        plain = (
            (self.dtype == "float32" and isinstance(self.value, float))
            or (self.dtype == "int64" and isinstance(self.value, int) and not isinstance(self.value, bool))
            or (self.dtype == "bool" and isinstance(self.value, bool))
        )
        return text if plain else f"{self.dtype}({text})"


class Index(Struct, frozen=True):
    """An index expression used as an int64 value."""

    dim: Dim
    dtype: ClassVar[str] = "int64"

    def __str__(self) -> str:
        return f"index({self.dim})"


class Load(Struct, frozen=True):
    """``buffer[index]``; where a guard ``0 <= dim < extent`` fails nothing is
    read and the value is ``other``.
    """

    buffer: str
    index: tuple[IndexExpr, ...]
    dtype: str
    guards: tuple[tuple[Dim, Dim], ...] = ()
    other: Const | None = None

    def __str__(self) -> str:
        text = f"{self.buffer}[{', '.join(map(str, self.index)) or '()'}]"
        if not self.guards:
            return text
        guards = " and ".join(f"inside({dim}, {extent})" for dim, extent in self.guards)
        return f"({text} if {guards} else {self.other})"


class Call(Struct, frozen=True):
    """A scalar function applied to operands."""

    fn: str
    args: tuple[Expr, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{self.fn}({', '.join(map(str, self.args))})"


class Cast(Struct, frozen=True):
    """A value converted to ``dtype`` with ONNX's Cast semantics (float to int truncates)."""

    arg: Expr
    dtype: str

    def __str__(self) -> str:
        return f"cast({self.arg}, {self.dtype})"


class Acc(Struct, frozen=True):
    """The value of the stage's finished reduction."""

    dtype: str

    def __str__(self) -> str:
        return "acc"


Expr: TypeAlias = "Const | Index | Load | Call | Cast | Acc"
IndexExpr: TypeAlias = "Dim | Expr"


def call(fn: str, *args: Expr) -> Expr:
    """``fn`` applied to ``args``; ValueError when the arity is wrong."""
    if FUNCTIONS[fn].arity != len(args):
        raise ValueError(f"{fn} takes {FUNCTIONS[fn].arity} operands, not {len(args)}")
    return Call(fn, args, result_dtype(fn, tuple(arg.dtype for arg in args)))


def cast(arg: Expr, dtype: str) -> Expr:
    """``arg`` as ``dtype``; the same expression when it has that dtype already."""
    return arg if arg.dtype == dtype else Cast(arg, dtype)


def expand_definitions(expr: Expr) -> Expr:
    """``expr`` with every defined function (silu, gelu_erf …) replaced by its definition,
    down to primitives.
    """

    def expand(node: Expr) -> Expr:
        if isinstance(node, Call) and (definition := FUNCTIONS[node.fn].definition):
            dtype = node.dtype
            return expand_definitions(definition(call, lambda value: Const(value, dtype), *node.args))
        return node

    return transform(expr, expand)


def is_indirect(index: IndexExpr) -> bool:
    """Whether an index depends on loaded data."""
    return not isinstance(index, int | SymDim)


def children(expr: Expr) -> tuple[Expr, ...]:
    """The direct operands of ``expr``, indirect indices of a Load included."""
    match expr:
        case Call(args=args):
            return args
        case Cast(arg=arg):
            return (arg,)
        case Load(index=index):
            return tuple(i for i in index if not isinstance(i, int | SymDim))
        case _:
            return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """Every sub-expression of ``expr``, itself first (shared ones once for each occurrence)."""
    yield expr
    for child in children(expr):
        yield from walk(child)


def transform(expr: Expr, rewrite: Callable[[Expr], Expr]) -> Expr:
    """``expr`` rebuilt bottom-up, with ``rewrite`` applied to every node after its operands."""
    match expr:
        case Call(fn=fn, args=args, dtype=dtype):
            expr = Call(fn, tuple(transform(arg, rewrite) for arg in args), dtype)
        case Cast(arg=arg, dtype=dtype):
            expr = Cast(transform(arg, rewrite), dtype)
        case Load(index=index) if any(is_indirect(i) for i in index):
            new = tuple(i if isinstance(i, int | SymDim) else transform(i, rewrite) for i in index)
            expr = Load(expr.buffer, new, expr.dtype, expr.guards, expr.other)
    return rewrite(expr)


def substitute_indices(expr: Expr, env: Mapping[str, Dim]) -> Expr:
    """``expr`` with axis names replaced by index expressions, in loads, guards and index values."""

    def rewrite(node: Expr) -> Expr:
        match node:
            case Index(dim=dim):
                return Index(substitute(dim, env))
            case Load():
                return Load(
                    node.buffer,
                    tuple(substitute(i, env) if isinstance(i, int | SymDim) else i for i in node.index),
                    node.dtype,
                    tuple((substitute(d, env), substitute(e, env)) for d, e in node.guards),
                    node.other,
                )
            case _:
                return node

    return transform(expr, rewrite)


def loads(expr: Expr) -> list[Load]:
    """The distinct loads in ``expr``, in order of first occurrence."""
    return list(dict.fromkeys(node for node in walk(expr) if isinstance(node, Load)))


def index_symbols(expr: Expr) -> frozenset[str]:
    """Every axis or dim name that ``expr`` depends on."""
    names: set[str] = set()
    for node in walk(expr):
        match node:
            case Index(dim=dim):
                names |= symbols_of(dim)
            case Load(index=index, guards=guards):
                for i in index:
                    if isinstance(i, int | SymDim):
                        names |= symbols_of(i)
                for dim, extent in guards:
                    names |= symbols_of(dim) | symbols_of(extent)
    return frozenset(names)
