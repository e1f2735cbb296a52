"""Simplification of index expressions by ranges: known openings, equality at random points."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egc.ir.dims import DimError, dim_max, dim_min, evaluate, floordiv, mod, parse_dim, substitute, symbol
from egc.ir.simplify import bounds, is_inside, simplify, simplify_extent

AXES = {"i": 4, "j": 6, "k": parse_dim("s"), "m": parse_dim("s*t"), "n": parse_dim("2*t")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("floordiv(i*6 + j, 6)", "i"),
        ("mod(i*6 + j, 6)", "j"),
        ("floordiv(i*2 + mod(j, 2), 6)", "floordiv(i, 3)"),
        ("mod(12*i + 2*j + 1, 12)", "2*j + 1"),
        ("mod(8*i + 3, 12)", "4*mod(2*i, 3) + 3"),
        ("floordiv(i*s + k, s)", "i"),
        ("mod(i*s + k, s)", "k"),
        ("floordiv(i*s*5 + k*5 + 4, 5*s)", "i"),
        ("floordiv(m, s*t)", "0"),
        ("floordiv(m, s)", "floordiv(m, s)"),
        ("floordiv(floordiv(m, 2), 3)", "floordiv(m, 6)"),
        ("5*floordiv(m, 5) + mod(m, 5)", "m"),
        ("s*floordiv(m, s)*3 + 3*mod(m, s)", "3*m"),
        ("floordiv(j - 6, 6)", "-1"),
        ("min(i, 5)", "i"),
        ("max(k, s)", "s"),
    ],
)
def test_opens(text: str, expected: str) -> None:
    assert simplify(parse_dim(text), AXES) == parse_dim(expected)


atoms = st.sampled_from([*map(symbol, AXES), symbol("s"), symbol("t"), *range(-3, 13)])


def _combine(children: st.SearchStrategy) -> st.SearchStrategy:
    divisors = st.sampled_from(
        [1, 2, 3, 4, 6, 12, symbol("s"), symbol("t"), parse_dim("s*t"), parse_dim("2*t")]
    )
    return st.one_of(
        st.tuples(children, children).map(lambda p: p[0] + p[1]),
        st.tuples(children, st.sampled_from([-1, 2, 3, 6, symbol("s"), symbol("t")])).map(
            lambda p: p[0] * p[1]
        ),
        st.tuples(children, divisors).map(lambda p: floordiv(*p)),
        st.tuples(children, divisors).map(lambda p: mod(*p)),
        st.tuples(children, children).map(lambda p: dim_min(*p)),
        st.tuples(children, children).map(lambda p: dim_max(*p)),
    )


@settings(max_examples=400, deadline=None)
@given(dim=st.recursive(atoms, _combine, max_leaves=8), data=st.data())
def test_is_equal_at_every_point_in_range(dim, data) -> None:
    extents = {"s": data.draw(st.integers(1, 5)), "t": data.draw(st.integers(1, 5))}
    point = {v: data.draw(st.integers(0, evaluate(e, extents) - 1)) for v, e in AXES.items()} | extents
    simpler = simplify(dim, AXES)
    value = evaluate(dim, point)
    assert evaluate(simpler, point) == value
    low, high = bounds(dim, AXES)
    assert low is None or evaluate(low, extents) <= value
    assert high is None or value <= evaluate(high, extents)
    for extent in (1, 4, symbol("s"), parse_dim("2*t")):
        if is_inside(dim, extent, AXES):
            assert 0 <= value < evaluate(extent, extents)


def test_a_divisor_that_may_be_negative_is_left_alone() -> None:
    dim = floordiv(symbol("m"), parse_dim("s - 3"))
    assert simplify(dim, AXES) == dim
    with pytest.raises(DimError):
        evaluate(dim, {"m": 1, "s": 3})


def test_a_call_of_extents_is_simplified_once_for_all_axes() -> None:
    """Every index of an unrolled loop has it, each time with one more counter in the ranges."""
    call = parse_dim("floordiv(floordiv(s*13 + 1, 2) + 1, 2)")
    simplify(call, AXES)
    misses = simplify_extent.cache_info().misses
    for counter in range(50):
        index = simplify(call * symbol("i") + symbol("j"), {**AXES, f"_counter_{counter}": 8})
        assert index == simplify(call, AXES) * symbol("i") + symbol("j")
    assert simplify_extent.cache_info().misses == misses


def test_extents_that_axes_show_to_be_positive_are_told_from_those_that_may_be_zero() -> None:
    dim = dim_max(symbol("s"), 1)
    assert simplify(dim, {"k": symbol("s")}) == symbol("s")
    assert simplify(dim, {"k": symbol("t")}) == dim


def test_what_is_substituted_in_a_call_is_put_in_normal_form() -> None:
    dim = parse_dim("n*floordiv(h, 2) + floordiv(w, 3) + 1")
    assert substitute(dim, {"h": 2 * symbol("n")}) == parse_dim("n*n + floordiv(w, 3) + 1")
    assert substitute(dim, {"absent": 1}) == dim
