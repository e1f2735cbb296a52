"""Tensor extents: integers, or symbolic integer expressions over named dims.

A symbolic dim is a polynomial with integer coefficients over *atoms*; an atom is a symbol (``batch``) or a
call of ``floordiv``, ``mod``, ``min`` or ``max`` on dims. Polynomials are kept in one normal form, so two
dims that are equal by ring arithmetic are equal as Python objects. The text form (``batch*seq + 1``,
``floordiv(h - 1, 2) + 1``) prints and parses.

This module imports nothing but the standard library and msgspec: the runtime evaluates dims with it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeAlias

from msgspec import Struct

Dim: TypeAlias = "int | SymDim"
Shape: TypeAlias = "tuple[Dim, ...]"


class Call(Struct, frozen=True):
    """An atom that no ring law opens: ``floordiv``, ``mod``, ``min`` or ``max`` of two dims."""

    fn: str
    args: tuple[Dim, Dim]

    def __str__(self) -> str:
        return f"{self.fn}({self.args[0]}, {self.args[1]})"


Atom: TypeAlias = "str | Call"
Monomial: TypeAlias = "tuple[Atom, ...]"

_FUNCTIONS: Mapping[str, Callable[[int, int], int]] = {
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "min": min,
    "max": max,
}
_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class DimError(ValueError):
    """A dim expression that cannot be read or evaluated."""


class SymDim(Struct, frozen=True):
    """A non-constant dim: the sum of ``coefficient * product(monomial)`` over
    ``terms`` (normal form, sorted).
    """

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        return _from_terms([*self.terms, *_terms(other)])

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return _from_terms([(m, -c) for m, c in self.terms])

    def __sub__(self, other: Dim) -> Dim:
        return self + (-other)

    def __rsub__(self, other: Dim) -> Dim:
        return (-self) + other

    def __mul__(self, other: Dim) -> Dim:
        products = [
            (tuple(sorted((*m, *n), key=_name)), c * d) for m, c in self.terms for n, d in _terms(other)
        ]
        return _from_terms(products)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)

    def __str__(self) -> str:
        out = ""
        for monomial, coefficient in self.terms:
            body = "*".join(map(str, monomial))
            if not monomial:
                body = str(abs(coefficient))
            elif abs(coefficient) != 1:
                body = f"{abs(coefficient)}*{body}"
            sign = "-" if coefficient < 0 else ("+" if out else "")
            out += f" {sign} {body}" if out else f"{sign}{body}"
        return out

    __repr__ = __str__


def symbol(name: str) -> SymDim:
    """The dim named ``name`` (a letter or underscore, then letters, digits, underscores)."""
    if not _SYMBOL.match(name):
        raise DimError(f"{name!r} is not a dim name")
    return SymDim((((name,), 1),))


def floordiv(a: Dim, b: Dim) -> Dim:
    """``a // b``, rounding down; exact division of a polynomial by an integer, and of a dim by itself,
    is folded.
    """
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            raise DimError(f"division of {a} by zero")
        return a // b
    if b == 1:
        return a
    if a == b:
        return 1
    quotient = _exact_quotient(a, b)
    return _call("floordiv", a, b) if quotient is None else quotient


def mod(a: Dim, b: Dim) -> Dim:
    """``a % b`` with the sign of ``b`` (Python's)."""
    if isinstance(a, int) and isinstance(b, int):
        if b == 0:
            raise DimError(f"remainder of {a} by zero")
        return a % b
    if b == 1 or a == b or _exact_quotient(a, b) is not None:
        return 0
    return _call("mod", a, b)


def dim_min(a: Dim, b: Dim) -> Dim:
    """The smaller of two dims; folded when their difference is a constant."""
    difference = a - b
    if isinstance(difference, int):
        return a if difference <= 0 else b
    return _call("min", a, b)


def dim_max(a: Dim, b: Dim) -> Dim:
    """The larger of two dims; folded when their difference is a constant."""
    difference = a - b
    if isinstance(difference, int):
        return a if difference >= 0 else b
    return _call("max", a, b)


def ceildiv(a: Dim, b: Dim) -> Dim:
    """``a / b`` rounded up."""
    return floordiv(a + b - 1, b)


def product(dims: tuple[Dim, ...] | list[Dim]) -> Dim:
    """The product of dims; 1 for none."""
    out: Dim = 1
    for dim in dims:
        out = out * dim
    return out


def extents(shape: Shape) -> tuple[int, ...]:
    """The integers that a shape consists of; DimError where one is symbolic."""
    found = tuple(dim for dim in shape if isinstance(dim, int))
    if len(found) < len(shape):
        raise DimError(f"[{', '.join(map(str, shape))}] has symbolic extents")
    return found


def symbols_of(dim: Dim) -> frozenset[str]:
    """The names that occur in ``dim``."""
    if isinstance(dim, int):
        return frozenset()
    names: set[str] = set()
    for monomial, _ in dim.terms:
        for atom in monomial:
            names |= {atom} if isinstance(atom, str) else symbols_of_call(atom)
    return frozenset(names)


@lru_cache(maxsize=4096)
def symbols_of_call(call: Call) -> frozenset[str]:
    """The names that occur in the arguments of ``call``."""
    return symbols_of(call.args[0]) | symbols_of(call.args[1])


def substitute(dim: Dim, env: Mapping[str, Dim]) -> Dim:
    """``dim`` with the symbols in ``env`` replaced; symbols not in ``env`` stay."""
    if isinstance(dim, int):
        return dim
    terms: list[tuple[Monomial, int]] = []
    for monomial, coefficient in dim.terms:
        term: Dim = coefficient
        for atom in monomial:
            term = term * _substitute_atom(atom, env)
        terms.extend(_terms(term))
    return _from_terms(terms)


def _substitute_atom(atom: Atom, env: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, str):
        return env[atom] if atom in env else symbol(atom)
    if symbols_of_call(atom).isdisjoint(env):
        return SymDim((((atom,), 1),))
    return _BUILDERS[atom.fn](substitute(atom.args[0], env), substitute(atom.args[1], env))


def evaluate(dim: Dim, env: Mapping[str, int]) -> int:
    """The value of ``dim`` where every symbol has a value in ``env``;
    DimError names the first that has none.
    """
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, coefficient in dim.terms:
        for atom in monomial:
            if isinstance(atom, str):
                if atom not in env:
                    raise DimError(f"the dim {atom!r} has no value")
                coefficient *= env[atom]
            else:
                try:
                    coefficient *= _FUNCTIONS[atom.fn](
                        evaluate(atom.args[0], env), evaluate(atom.args[1], env)
                    )
                except ZeroDivisionError:
                    raise DimError(f"division by zero in {atom}") from None
        total += coefficient
    return total


@lru_cache(maxsize=4096)
def parse_dim(text: str) -> Dim:
    """The dim that ``text`` prints; DimError says what cannot be read."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise DimError(f"{text!r} is not a dim expression") from None
    return _read(tree.body, text)


def _read(node: ast.expr, text: str) -> Dim:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return value
        case ast.Name(id=name):
            return symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_read(operand, text)
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _read(left, text), _read(right, text)
            match op:
                case ast.Add():
                    return a + b
                case ast.Sub():
                    return a - b
                case ast.Mult():
                    return a * b
                case ast.FloorDiv():
                    return floordiv(a, b)
                case ast.Mod():
                    return mod(a, b)
        case ast.Call(func=ast.Name(id=name), args=[left, right]) if name in _BUILDERS:
            return _BUILDERS[name](_read(left, text), _read(right, text))
    raise DimError(f"{text!r} is not a dim expression")


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    return (((), dim),) if isinstance(dim, int) else dim.terms


def _from_terms(terms: list[tuple[Monomial, int]]) -> Dim:
    sums: dict[Monomial, int] = {}
    for monomial, coefficient in terms:
        sums[monomial] = sums.get(monomial, 0) + coefficient
    kept = [(m, c) for m, c in sums.items() if c != 0]
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    if len(kept) > 1:
        # Higher degrees first, then by name: the constant term prints last.
        kept.sort(key=lambda term: (-len(term[0]), tuple(map(_name, term[0]))))
    return SymDim(tuple(kept))


def _name(atom: Atom) -> str:
    """What atoms are ordered by: their text."""
    return atom if isinstance(atom, str) else _text(atom)


@lru_cache(maxsize=4096)
def _text(call: Call) -> str:
    return str(call)


def _exact_quotient(a: Dim, b: Dim) -> Dim | None:
    """``a / b`` where ``b`` divides ``a`` as a polynomial with integer coefficients; None where it does not.

    Long division: every step cancels the greatest term that is left.
    """
    if b == 0:
        return None
    quotient: Dim = 0
    rest = a
    divisor, divisor_coefficient = _terms(b)[0]
    while rest != 0:
        monomial, coefficient = _terms(rest)[0]
        factors = list(monomial)
        for atom in divisor:
            if atom not in factors:
                return None
            factors.remove(atom)
        if coefficient % divisor_coefficient:
            return None
        term = _from_terms([(tuple(factors), coefficient // divisor_coefficient)])
        quotient, rest = quotient + term, rest - term * b
    return quotient


def _call(fn: str, a: Dim, b: Dim) -> Dim:
    return SymDim((((Call(fn, (a, b)),), 1),))


_BUILDERS: Mapping[str, Callable[[Dim, Dim], Dim]] = {
    "floordiv": floordiv,
    "mod": mod,
    "min": dim_min,
    "max": dim_max,
}
