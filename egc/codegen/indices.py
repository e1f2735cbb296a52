"""Index arithmetic at compile time: ranges of index expressions, and floordiv and mod opened with them.

A loop nest makes positions such as 64·i + 16·j + lane. With the ranges of the counters known, floordiv and mod of such a
sum mostly open up (a panel's number is 64·i ÷ 64 = i), which is what makes addresses affine in the tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd
from typing import TypeAlias

from egc.ir.dims import Call, Dim, Monomial, SymDim, dim_max, dim_min, floordiv, mod, symbols_of

# For each symbol its least and greatest value; None where there is no bound.
Range: TypeAlias = "tuple[int | None, int | None]"
Ranges: TypeAlias = Mapping[str, Range]

_FOLD = {"floordiv": floordiv, "mod": mod, "min": dim_min, "max": dim_max}


def sym(name: str) -> SymDim:
    """A symbol without a check of its name."""
    return SymDim((((name,), 1),))


def terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    """The monomials of a dim with their coefficients; a constant is one empty monomial."""
    return (((), dim),) if isinstance(dim, int) else dim.terms


def from_terms(chosen: list[tuple[Monomial, int]]) -> Dim:
    """The sum of `chosen`."""
    total: Dim = 0
    for monomial, coefficient in chosen:
        total = total + (SymDim(((monomial, coefficient),)) if monomial else coefficient)
    return total


def bounds(dim: Dim, ranges: Ranges) -> Range:
    """The least and greatest value of `dim`; symbols not in `ranges` are extents: 0 or more."""
    if isinstance(dim, int):
        return dim, dim
    low: int | None = 0
    high: int | None = 0
    for monomial, coefficient in dim.terms:
        least, greatest = _monomial_bounds(monomial, ranges)
        least = None if least is None else least * coefficient
        greatest = None if greatest is None else greatest * coefficient
        if coefficient < 0:
            least, greatest = greatest, least
        low = None if low is None or least is None else low + least
        high = None if high is None or greatest is None else high + greatest
    return low, high


def _monomial_bounds(monomial: Monomial, ranges: Ranges) -> Range:
    low: int | None = 1
    high: int | None = 1
    for atom in monomial:
        least, greatest = ranges.get(atom, (0, None)) if isinstance(atom, str) else _call_bounds(atom, ranges)
        if len(monomial) == 1:
            return least, greatest
        if least is None or least < 0:
            return None, None
        low = low * least if low is not None else None
        high = None if high is None or greatest is None else high * greatest
    return low, high


def _call_bounds(atom: Call, ranges: Ranges) -> Range:
    a, b = bounds(atom.args[0], ranges), bounds(atom.args[1], ranges)
    if atom.fn == "mod":
        return (0, b[1] - 1 if b[1] is not None else None) if b[0] is not None and b[0] >= 0 else (None, None)
    if atom.fn == "floordiv":
        divisor = atom.args[1]
        if isinstance(divisor, int) and divisor > 0:
            return tuple(None if v is None else v // divisor for v in a)  # type: ignore[return-value]
        return (0, a[1]) if a[0] is not None and a[0] >= 0 and (b[0] or 0) >= 0 else (None, None)
    if atom.fn == "min":
        highs = [v for v in (a[1], b[1]) if v is not None]
        return (None if a[0] is None or b[0] is None else min(a[0], b[0])), min(highs, default=None)
    lows = [v for v in (a[0], b[0]) if v is not None]
    return max(lows, default=None), (None if a[1] is None or b[1] is None else max(a[1], b[1]))


def simplify(dim: Dim, ranges: Ranges) -> Dim:
    """`dim` with every floordiv and mod opened as far as `ranges` allow."""
    if isinstance(dim, int) or not any(isinstance(atom, Call) for m, _ in dim.terms for atom in m):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        term: Dim = coefficient
        for atom in monomial:
            term = term * (sym(atom) if isinstance(atom, str) else _open(atom, ranges))
        total = total + term
    return total


def _open(atom: Call, ranges: Ranges) -> Dim:
    a, b = simplify(atom.args[0], ranges), simplify(atom.args[1], ranges)
    if atom.fn not in ("floordiv", "mod") or b == 0:
        return _FOLD[atom.fn](a, b)
    quotient, remainder = _divide(a, b, ranges)
    return quotient if atom.fn == "floordiv" else remainder


def _divide(a: Dim, b: Dim, ranges: Ranges) -> tuple[Dim, Dim]:
    """floordiv(a, b) and mod(a, b)."""
    if not isinstance(b, int) or b < 0:
        return floordiv(a, b), mod(a, b)
    divisors = {gcd(coefficient, b) for _, coefficient in terms(a)} | {b}
    for divisor in sorted((d for d in divisors if d > 1), reverse=True):
        # a = divisor·whole + rest with 0 <= rest < divisor, and divisor divides b.
        parts = terms(a)
        whole = from_terms([(m, c // divisor) for m, c in parts])
        rest = from_terms([(m, c % divisor) for m, c in parts])
        low, high = bounds(rest, ranges)
        if low is not None and low >= 0 and high is not None and high < divisor:
            if divisor == b:
                return whole, rest
            outer, inner = _divide(whole, b // divisor, ranges)
            return outer, divisor * inner + rest
    return floordiv(a, b), mod(a, b)


def affine(dim: Dim, names: frozenset[str]) -> dict[str, Dim] | None:
    """The coefficient of each of `names` in `dim`, with the rest under ""; None where it is not affine in them."""
    parts: dict[str, list[tuple[Monomial, int]]] = {"": []}
    for monomial, coefficient in terms(dim):
        own = ""
        others: list[str | Call] = []
        for atom in monomial:
            if isinstance(atom, str) and atom in names and not own:
                own = atom
            elif (atom in names) if isinstance(atom, str) else _mentions(atom, names):
                return None
            else:
                others.append(atom)
        parts.setdefault(own, []).append((tuple(others), coefficient))
    return {name: from_terms(chosen) for name, chosen in parts.items()}


def _mentions(atom: Call, names: frozenset[str]) -> bool:
    return any(symbols_of(arg) & names for arg in atom.args)
