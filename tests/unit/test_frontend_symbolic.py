"""Dims as exporters compute them: what is said of them holds for every extent."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from egc.frontend.shape import slice_range
from egc.frontend.symbolic import divide
from egc.ir.dims import Dim, dim_max, dim_min, evaluate, floordiv, symbol
from egc.ir.extents import at_least, simplify

N = symbol("n")
PLACES = st.one_of(st.integers(-6, 6), st.just(1 << 62), st.just(-(1 << 62)))


def _dims() -> st.SearchStrategy[Dim]:
    leaves = st.one_of(st.integers(-8, 8), st.just(N))

    def grow(inner: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
        pair = st.tuples(inner, inner)
        return st.one_of(
            pair.map(lambda p: p[0] + p[1]),
            pair.map(lambda p: p[0] - p[1]),
            pair.map(lambda p: dim_min(*p)),
            pair.map(lambda p: dim_max(*p)),
            inner.map(lambda d: 2 * d),
        )

    return st.recursive(leaves, grow, max_leaves=8)


@given(_dims(), st.integers(0, 200))
def test_simplify_keeps_the_value_for_every_extent(dim: Dim, n: int) -> None:
    assert evaluate(simplify(dim), {"n": n}) == evaluate(dim, {"n": n})


@given(_dims(), _dims())
def test_a_product_divides_by_its_factors(a: Dim, b: Dim) -> None:
    assume(b != 0)
    assert floordiv(a * b, b) == a


def test_heads_of_a_convolved_signal_are_counted() -> None:
    frames = (N - 10) // 5 + 1
    assert (32 * N * frames) // (8 * N * frames) == 4
    assert str((N * N + 1) // (N + 1)) == "floordiv(n*n + 1, n + 1)"


@given(_dims(), st.integers(-10, 10), st.integers(0, 60))
def test_at_least_is_never_wrong(dim: Dim, bound: int, n: int) -> None:
    if at_least(dim, bound):
        assert evaluate(dim, {"n": n}) >= bound


@given(PLACES, PLACES, st.sampled_from([-3, -2, -1, 1, 2, 3]), st.integers(0, 20))
def test_a_slice_of_a_symbolic_axis_is_pythons(start: int, end: int, step: int, n: int) -> None:
    # Going backwards from before the first element, ONNX begins at the first and Python takes nothing.
    assume(step > 0 or start >= -n)
    first, size = (evaluate(d, {"n": n}) for d in slice_range(start, end, step, N))
    assert [first + i * step for i in range(size)] == list(range(n))[start:end:step]


@given(st.integers(-9, 9), st.integers(-3, 3), st.integers(1, 5), st.integers(0, 20))
def test_quotients_of_dims_truncate_as_onnx_does(constant: int, slope: int, divisor: int, n: int) -> None:
    a = slope * N + constant
    value = evaluate(a, {"n": n})
    assert evaluate(divide(a, divisor), {"n": n}) == int(value / divisor)


def test_shifted_lengths_become_the_length_again() -> None:
    assert simplify(dim_max(-dim_min(1, N) + dim_min(N + 1, dim_min(1, N) + N), 0)) == N
    assert simplify(dim_min(N, 5)) == dim_min(N, 5)
