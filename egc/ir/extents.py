"""What is known of an extent whatever the run: its symbols are extents themselves and so not negative."""

from __future__ import annotations

from functools import lru_cache

from egc.ir.dims import Call, Dim, SymDim, evaluate, symbol, symbols_of

_MAX_REACH = 512

# The least and the greatest value; None where there is none, or none to be seen.
Interval = tuple[int | None, int | None]


def at_least(dim: Dim, bound: int) -> bool:
    """Whether ``dim >= bound`` for all values of its symbols."""
    low, _ = interval(dim)
    if low is not None and low >= bound:
        return True
    pieces = _sampled(dim)
    # Beyond the last sample the dim goes on as between the last two.
    return pieces is not None and min(pieces) >= bound and pieces[-1] >= pieces[-2]


@lru_cache(maxsize=4096)
def at_most_one(dim: Dim) -> bool:
    """Whether ``dim <= 1`` for all values of its symbols, as the extent of ``x[-1:]`` is: 1, or 0 where x is
    empty.
    """
    if isinstance(dim, int):
        return dim <= 1
    return _has_calls(dim) and at_least(1 - dim, 0)


def simplify(dim: Dim) -> Dim:
    """``dim``, or a linear dim that is equal to it for all extents; tried for sums of ``min`` and ``max``
    of one symbol.

    A line that agrees on all samples agrees everywhere.
    """
    if isinstance(dim, int) or not _has_calls(dim) or (values := _sampled(dim)) is None:
        return dim
    (name,) = symbols_of(dim)
    slope = values[-1] - values[-2]
    constant = values[-1] - slope * (len(values) - 1)
    line = symbol(name) * slope + constant
    return line if all(v == slope * s + constant for s, v in enumerate(values)) else dim


def interval(dim: Dim) -> Interval:
    """Bounds of ``dim``, term by term."""
    if isinstance(dim, int):
        return dim, dim
    low: int | None = 0
    high: int | None = 0
    for monomial, coefficient in dim.terms:
        least, most = _product([(0, None) if isinstance(a, str) else _of_call(a) for a in monomial])
        if coefficient < 0:
            least, most = most, least
        low = None if low is None or least is None else low + coefficient * least
        high = None if high is None or most is None else high + coefficient * most
    return low, high


def _product(factors: list[Interval]) -> Interval:
    if len(factors) == 1:
        return factors[0]
    low, high = 1, 1
    for least, most in factors:
        if least is None or least < 0:  # products of what may be negative have other corners
            return None, None
        low *= least
        high = None if high is None or most is None else high * most  # type: ignore[assignment]
    return low, high


def _of_call(call: Call) -> Interval:
    (low_a, high_a), (low_b, high_b) = map(interval, call.args)
    b = call.args[1]
    lows = [v for v in (low_a, low_b) if v is not None]
    highs = [v for v in (high_a, high_b) if v is not None]
    match call.fn:
        case "floordiv" if isinstance(b, int) and b > 0:
            return None if low_a is None else low_a // b, None if high_a is None else high_a // b
        case "mod" if isinstance(b, int) and b > 0:
            return 0, b - 1
        case "min":
            return min(lows) if len(lows) == 2 else None, min(highs, default=None)
        case "max":
            return max(lows, default=None), max(highs) if len(highs) == 2 else None
    return None, None


def _sampled(dim: Dim) -> list[int] | None:
    """The values of a dim of one symbol at 0, 1, 2 … up to where it has become a straight line for good; None
    for dims that are not piecewise linear, or become straight too late.

    Two pieces ``a s + b`` meet where ``s`` is at most the sum of the constants' magnitudes doubled.
    """
    names = symbols_of(dim)
    reach = _reach(dim)
    if len(names) != 1 or reach is None or reach > _MAX_REACH:
        return None
    (name,) = names
    return [evaluate(dim, {name: s}) for s in range(2 * reach + 3)]


def _has_calls(dim: SymDim) -> bool:
    return any(isinstance(atom, Call) for monomial, _ in dim.terms for atom in monomial)


def _reach(dim: Dim) -> int | None:
    """A bound on the magnitude of every constant of every piece of a piecewise linear ``dim``; None for
    other dims."""
    if isinstance(dim, int):
        return abs(dim)
    total = 0
    for monomial, coefficient in dim.terms:
        if len(monomial) > 1:
            return None
        part = 1
        for atom in monomial:
            if isinstance(atom, Call):
                inner = [_reach(arg) for arg in atom.args]
                if atom.fn not in ("min", "max") or None in inner:
                    return None
                part = sum(r for r in inner if r is not None)
        total += abs(coefficient) * part
    return total
