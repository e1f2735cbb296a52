"""Simplification of index expressions by what is known about the ranges of their symbols.

``ranges`` gives axes: ``0 <= v < ranges[v]`` for every point that is ever evaluated, so every extent in it
is at least 1 there. Any other symbol is an extent: an integer >= 0. With that, the floordivs and mods which
views leave behind open up. For an integer (or single-term symbolic) divisor c > 0, any integer q and 0 <= r
< c:

    (q*c + r) // c = q              (q*c + r) % c = r
    (g*q + s) // (g*c) = q // c     (g*q + s) % (g*c) = g*(q % c) + s        for 0 <= s < g
    (x // a) // c = x // (a*c)      c*(x // c) + x % c = x

(Graham, Knuth, Patashnik: Concrete Mathematics, section 3.1-3.4.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TypeAlias

from egc.ir.dims import (
    Call,
    Dim,
    Monomial,
    SymDim,
    dim_max,
    dim_min,
    floordiv,
    mod,
    substitute,
    symbol,
    symbols_of,
    symbols_of_call,
)

Ranges: TypeAlias = "Mapping[str, Dim]"


def simplify(dim: Dim, ranges: Ranges) -> Dim:
    """A dim with fewer ``floordiv`` and ``mod`` that is equal wherever the axes are in range."""
    if isinstance(dim, int) or not _has_calls(dim):
        return dim
    total: Dim = 0
    for monomial, coefficient in dim.terms:
        term: Dim = coefficient
        for atom in monomial:
            term = term * (symbol(atom) if isinstance(atom, str) else _simplify_call(atom, ranges))
        total = total + term
    return _recombine(total)


def bounds(dim: Dim, ranges: Ranges) -> tuple[Dim | None, Dim | None]:
    """A lower and an upper bound of ``dim``, free of axes; None where none was found."""
    low: Dim | None = 0
    high: Dim | None = 0
    for monomial, coefficient in _terms(dim):
        smallest, largest = _product_bounds(monomial, ranges)
        if coefficient < 0:
            smallest, largest = largest, smallest
        low = None if low is None or smallest is None else low + coefficient * smallest
        high = None if high is None or largest is None else high + coefficient * largest
    return low, high


def is_nonnegative(dim: Dim, ranges: Ranges) -> bool:
    """Whether ``dim >= 0`` was proved for all points in range (False: not proved)."""
    low, _ = bounds(dim, ranges)
    return low is not None and _certainly_nonnegative(low, ranges)


def is_inside(dim: Dim, extent: Dim, ranges: Ranges) -> bool:
    """Whether ``0 <= dim < extent`` was proved for all points in range (False: not proved)."""
    return is_nonnegative(dim, ranges) and is_nonnegative(extent - 1 - dim, ranges)


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    return (((), dim),) if isinstance(dim, int) else dim.terms


def _from_term(monomial: Monomial, coefficient: int) -> Dim:
    return SymDim(((monomial, coefficient),)) if monomial else coefficient


def _has_calls(dim: SymDim) -> bool:
    return any(not isinstance(atom, str) for monomial, _ in dim.terms for atom in monomial)


def _simplify_call(atom: Call, ranges: Ranges) -> Dim:
    if symbols_of_call(atom).isdisjoint(ranges):
        return simplify_extent(atom, _positive_symbols(ranges))
    return _simplified(atom, ranges)


@lru_cache(maxsize=4096)
def simplify_extent(atom: Call, positive: frozenset[str]) -> Dim:
    """A call free of axes, of which ranges say no more than which of its symbols are ``positive``.

    The extents of a kernel are met in every index that is written, with the same ranges nearly always.
    """
    return _simplified(atom, {f"{name} > 0": symbol(name) for name in positive})


def _simplified(atom: Call, ranges: Ranges) -> Dim:
    a, b = simplify(atom.args[0], ranges), simplify(atom.args[1], ranges)
    match atom.fn:
        case "floordiv":
            return _floordiv(a, b, ranges)
        case "mod":
            return _mod(a, b, ranges)
        case "min":
            return (
                a if is_nonnegative(b - a, ranges) else b if is_nonnegative(a - b, ranges) else dim_min(a, b)
            )
        case _:
            return (
                a if is_nonnegative(a - b, ranges) else b if is_nonnegative(b - a, ranges) else dim_max(a, b)
            )


def _floordiv(a: Dim, b: Dim, ranges: Ranges) -> Dim:
    if not _usable_divisor(b):
        return 0 if b != 0 and is_inside(a, b, ranges) else floordiv(a, b)
    quotient, rest = _divide_terms(a, b)
    if (k := _constant_quotient(rest, b, ranges)) is not None:
        return quotient + k
    if reduced := _common_factor(rest, b, ranges):
        upper, _, smaller, _ = reduced
        return quotient + _floordiv(upper, smaller, ranges)
    inner = _single_call(rest, "floordiv")
    if inner is not None and isinstance(b, int) and isinstance(inner.args[1], int) and inner.args[1] > 0:
        return quotient + _floordiv(inner.args[0], inner.args[1] * b, ranges)
    return quotient + floordiv(rest, b)


def _mod(a: Dim, b: Dim, ranges: Ranges) -> Dim:
    if not _usable_divisor(b):
        return a if b != 0 and is_inside(a, b, ranges) else mod(a, b)
    _, rest = _divide_terms(a, b)
    if (k := _constant_quotient(rest, b, ranges)) is not None:
        return rest - k * b
    if reduced := _common_factor(rest, b, ranges):
        upper, lower, smaller, factor = reduced
        return factor * _mod(upper, smaller, ranges) + lower
    return mod(rest, b)


def _usable_divisor(b: Dim) -> bool:
    """A positive integer, or a positive multiple of a product of symbols: > 0 where it may divide."""
    terms = _terms(b)
    if len(terms) != 1 or terms[0][1] <= 0:
        return False
    return all(isinstance(atom, str) for atom in terms[0][0])


def _divide_terms(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """``(q, r)`` with ``a = q*b + r``: q has each term that b divides, and multiples in a constant."""
    quotient: Dim = 0
    rest: Dim = 0
    for monomial, coefficient in _terms(a):
        part = _divide_term(monomial, coefficient, b)
        if part is not None:
            quotient = quotient + part
        elif not monomial and isinstance(b, int):
            quotient, rest = quotient + coefficient // b, rest + coefficient % b
        else:
            rest = rest + _from_term(monomial, coefficient)
    return quotient, rest


def _divide_term(monomial: Monomial, coefficient: int, b: Dim) -> Dim | None:
    ((divisor, divisor_coefficient),) = _terms(b)
    left = list(monomial)
    for atom in divisor:
        if atom not in left:
            return None
        left.remove(atom)
    if coefficient % divisor_coefficient:
        return None
    return _from_term(tuple(left), coefficient // divisor_coefficient)


def _constant_quotient(rest: Dim, b: Dim, ranges: Ranges) -> Dim | None:
    """``rest // b`` where it is one constant over the whole range."""
    low, high = bounds(rest, ranges)
    if isinstance(low, int) and isinstance(high, int) and isinstance(b, int):
        return low // b if low // b == high // b else None
    return 0 if is_inside(rest, b, ranges) else None


def _common_factor(rest: Dim, b: Dim, ranges: Ranges) -> tuple[Dim, Dim, Dim, Dim] | None:
    """``(q, s, b/g, g)`` with ``rest = g*q + s``, ``0 <= s < g``, for a factor g of b but 1 and b."""
    seen: set[Dim] = set()
    for monomial, coefficient in _terms(rest):
        factor = _term_gcd(monomial, coefficient, b)
        if factor in (1, b) or factor in seen:
            continue
        seen.add(factor)
        upper, lower = _divide_terms(rest, factor)
        if upper != 0 and is_inside(lower, factor, ranges):
            smaller = floordiv(b, factor)
            return upper, lower, smaller, factor
    return None


def _term_gcd(monomial: Monomial, coefficient: int, b: Dim) -> Dim:
    ((divisor, divisor_coefficient),) = _terms(b)
    left, common = list(monomial), []
    for atom in divisor:
        if atom in left:
            left.remove(atom)
            common.append(atom)
    return _from_term(tuple(common), math.gcd(coefficient, divisor_coefficient))


def _single_call(dim: Dim, fn: str) -> Call | None:
    match _terms(dim):
        case (((Call(fn=found) as call,), 1),) if found == fn:
            return call
    return None


def _recombine(dim: Dim) -> Dim:
    """``dim`` with every pair ``m*c*(x // c) + m*(x % c)`` written as ``m*x``."""
    if isinstance(dim, int):
        return dim
    for monomial, coefficient in dim.terms:
        for atom in monomial:
            if not (isinstance(atom, Call) and atom.fn == "mod"):
                continue
            x, c = atom.args
            others = list(monomial)
            others.remove(atom)
            factor = _from_term(tuple(others), coefficient)
            whole = factor * c * floordiv(x, c)
            if _contains(dim, whole):
                return _recombine(dim - whole - factor * mod(x, c) + factor * x)
    return dim


def _contains(dim: SymDim, part: Dim) -> bool:
    return all(term in dim.terms for term in _terms(part))


def _product_bounds(monomial: Monomial, ranges: Ranges) -> tuple[Dim | None, Dim | None]:
    low: Dim | None = 1
    high: Dim | None = 1
    for atom in monomial:
        smallest, largest = _atom_bounds(atom, ranges)
        if smallest is None or not _certainly_nonnegative(smallest, ranges):
            # Products of ranges that reach below zero have other corners: only a lone atom is bounded then.
            return (smallest, largest) if len(monomial) == 1 else (None, None)
        low = None if low is None else low * smallest
        high = None if high is None or largest is None else high * largest
    return low, high


def _atom_bounds(atom: str | Call, ranges: Ranges) -> tuple[Dim | None, Dim | None]:
    if isinstance(atom, str):
        return (0, ranges[atom] - 1) if atom in ranges else (symbol(atom), symbol(atom))
    a, b = atom.args
    if atom.fn == "mod" and _usable_divisor(b):
        return 0, b - 1
    if atom.fn == "floordiv" and _usable_divisor(b):
        low, high = bounds(a, ranges)
        return (
            None if low is None else 0 if _certainly_nonnegative(low, ranges) else floordiv(low, b),
            None if high is None else floordiv(high, b),
        )
    if atom.fn in ("min", "max"):
        return _extremum_bounds(atom.fn, bounds(a, ranges), bounds(b, ranges))
    return None, None


def _extremum_bounds(
    fn: str, a: tuple[Dim | None, Dim | None], b: tuple[Dim | None, Dim | None]
) -> tuple[Dim | None, Dim | None]:
    pick = dim_min if fn == "min" else dim_max
    (low_a, high_a), (low_b, high_b) = a, b
    low = None if low_a is None or low_b is None else pick(low_a, low_b)
    high = None if high_a is None or high_b is None else pick(high_a, high_b)
    return low, high


def _certainly_nonnegative(dim: Dim, ranges: Ranges) -> bool:
    """Whether all coefficients are >= 0 once the extents known to be >= 1 are shifted by 1."""
    if isinstance(dim, int):
        return dim >= 0
    if _nonnegative_terms(dim):
        return True
    positive = _positive_symbols(ranges)
    if positive.isdisjoint(symbols_of(dim)):
        return False
    return _nonnegative_terms(substitute(dim, {name: symbol(name) + 1 for name in positive}))


def _nonnegative_terms(dim: Dim) -> bool:
    return all(
        coefficient >= 0 and all(_nonnegative_atom(atom) for atom in monomial)
        for monomial, coefficient in _terms(dim)
    )


def _nonnegative_atom(atom: str | Call) -> bool:
    if isinstance(atom, str):
        return True
    # The arguments were shifted too: they are judged as they stand, no symbol known to be positive.
    a, b = atom.args
    if atom.fn == "mod":
        return _certainly_nonnegative(b, {})
    parts = [_certainly_nonnegative(x, {}) for x in (a, b)]
    return any(parts) if atom.fn == "max" else all(parts)


def _positive_symbols(ranges: Ranges) -> frozenset[str]:
    """Symbols that divide the extent of an axis: where that axis has a point, they are at least 1."""
    found: set[str] = set()
    for extent in ranges.values():
        if isinstance(extent, SymDim) and len(extent.terms) == 1:
            found.update(atom for atom in extent.terms[0][0] if isinstance(atom, str))
    return frozenset(found)
