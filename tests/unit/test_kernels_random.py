"""Random graphs, partitioned with every legal fusion: the kernels' meaning gives the graph's outputs."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from egc.ir.dims import product, symbol
from egc.ir.graph import Graph, GraphBuilder
from egc.ir.types import TensorType
from tests.support.kernels import check_calls

_UNARY = ("neg", "abs", "relu", "exp", "tanh")
_BINARY = ("add", "sub", "mul", "max", "min")


class Grower:
    """Grows a graph by random operators that fit the values it has."""

    def __init__(self, data: st.DataObject, symbolic: bool) -> None:
        self.draw = data.draw
        self.builder = GraphBuilder("random")
        self.values: list[str] = []
        lead = symbol("n") if symbolic else self.draw(st.integers(0, 4))
        for i in range(self.draw(st.integers(1, 2))):
            shape = (lead, *self.draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
            self.values.append(self.builder.input(f"x{i}", TensorType("float32", shape)))

    def shape(self, value: str) -> tuple:
        return self.builder.types[value].shape

    def add(self, op: str, *args: str, **attrs: object) -> None:
        self.values.append(self.builder.add(op, args, **attrs))  # type: ignore[arg-type]

    def weights(self, *shape: int) -> str:
        rng = np.random.default_rng(len(self.builder.constants))
        return self.builder.constant(rng.uniform(-1, 1, shape).astype(np.float32))

    def grow(self) -> None:
        """Append one operator over a random value."""
        x = self.draw(st.sampled_from(self.values))
        shape, rank = self.shape(x), len(self.shape(x))
        kind = self.draw(st.sampled_from(sorted(_GROWERS)))
        _GROWERS[kind](self, x, shape, rank)

    def finish(self) -> Graph:
        """The graph of the last value and, at times, of another."""
        outputs = dict.fromkeys([self.values[-1], self.draw(st.sampled_from(self.values))])
        computed = [name for name in outputs if not name.startswith("x")]
        return self.builder.finish(computed or [self.builder.add("map", (self.values[0],), fn="neg")])


def _unary(g: Grower, x: str, shape: tuple, rank: int) -> None:
    g.add("map", x, fn=g.draw(st.sampled_from(_UNARY)))


def _binary(g: Grower, x: str, shape: tuple, rank: int) -> None:
    same = [v for v in g.values if g.shape(v) == shape]
    g.add("map", x, g.draw(st.sampled_from(same)), fn=g.draw(st.sampled_from(_BINARY)))


def _bias(g: Grower, x: str, shape: tuple, rank: int) -> None:
    if isinstance(shape[-1], int):
        g.add("map", x, g.weights(shape[-1]), fn="add")


def _transpose(g: Grower, x: str, shape: tuple, rank: int) -> None:
    g.add("transpose", x, perm=tuple(g.draw(st.permutations(range(rank)))))


def _merge(g: Grower, x: str, shape: tuple, rank: int) -> None:
    if rank > 1:
        at = g.draw(st.integers(0, rank - 2))
        g.add("reshape", x, shape=(*shape[:at], product(shape[at : at + 2]), *shape[at + 2 :]))


def _split(g: Grower, x: str, shape: tuple, rank: int) -> None:
    at = g.draw(st.integers(0, rank - 1))
    divisors = [d for d in range(2, 7) if isinstance(shape[at], int) and shape[at] and shape[at] % d == 0]
    if divisors:
        d = g.draw(st.sampled_from(divisors))
        g.add("reshape", x, shape=(*shape[:at], shape[at] // d, d, *shape[at + 1 :]))


def _unit(g: Grower, x: str, shape: tuple, rank: int) -> None:
    at = g.draw(st.integers(0, rank))
    g.add("reshape", x, shape=(*shape[:at], 1, *shape[at:]))


def _slice(g: Grower, x: str, shape: tuple, rank: int) -> None:
    at = g.draw(st.integers(0, rank - 1))
    if isinstance(shape[at], int) and shape[at] > 1:
        start = g.draw(st.integers(0, shape[at] - 1))
        size = g.draw(st.integers(1, shape[at] - start))
        starts, sizes, steps = [0] * rank, list(shape), [1] * rank
        starts[at], sizes[at] = start, size
        if g.draw(st.booleans()):
            starts[at], steps[at] = start + size - 1, -1
        g.add("slice", x, starts=tuple(starts), sizes=tuple(sizes), steps=tuple(steps))


def _pad(g: Grower, x: str, shape: tuple, rank: int) -> None:
    low, high = [0] * rank, [0] * rank
    at = g.draw(st.integers(0, rank - 1))
    low[at], high[at] = g.draw(st.integers(0, 2)), g.draw(st.integers(0, 2))
    fill = g.builder.constant(np.float32(0.5))
    g.add("pad", x, fill, low=tuple(low), high=tuple(high), interior=(0,) * rank)


def _reduce(g: Grower, x: str, shape: tuple, rank: int) -> None:
    fn = g.draw(st.sampled_from(("add", "max", "min")))
    g.add("reduce", x, fn=fn, axes=tuple(sorted(g.draw(st.sets(st.integers(0, rank - 1), min_size=1)))))


def _expand(g: Grower, x: str, shape: tuple, rank: int) -> None:
    g.add("expand", x, shape=(2, *(3 if d == 1 else d for d in shape)))


def _softmax(g: Grower, x: str, shape: tuple, rank: int) -> None:
    g.add("softmax", x, axis=g.draw(st.integers(0, rank - 1)))


def _norm(g: Grower, x: str, shape: tuple, rank: int) -> None:
    if isinstance(shape[-1], int) and shape[-1]:
        width = shape[-1]
        # A large epsilon keeps rows of equal elements, whose variance is 0, away from noise over noise.
        g.add("layer_norm", x, g.weights(width), g.weights(width), axes=(rank - 1,), epsilon=0.1)


def _matmul(g: Grower, x: str, shape: tuple, rank: int) -> None:
    if rank > 1 and isinstance(shape[-1], int):
        g.add("matmul", x, g.weights(shape[-1], g.draw(st.integers(1, 5))))


def _gram(g: Grower, x: str, shape: tuple, rank: int) -> None:
    if rank > 1:
        swapped = g.builder.add("transpose", (x,), perm=(*range(rank - 2), rank - 1, rank - 2))
        g.add("matmul", x, swapped)


def _conv(g: Grower, x: str, shape: tuple, rank: int) -> None:
    fits = rank >= 3 and all(isinstance(d, int) and d >= 2 for d in shape[1:-1])
    if fits and isinstance(shape[-1], int) and all(d != 0 for d in shape):
        spatial = rank - 2
        pad = (g.draw(st.integers(0, 1)),) * spatial
        window = g.draw(st.integers(1, 2))
        groups = g.draw(st.sampled_from((1, shape[-1] or 1)))
        weights = g.weights(*(window,) * spatial, shape[-1] // groups, groups * g.draw(st.integers(1, 3)))
        ones = (1,) * spatial
        strides = (g.draw(st.integers(1, 2)),) * spatial
        g.add(
            "conv_channels_last",
            x,
            weights,
            strides=strides,
            dilations=ones,
            low=pad,
            high=pad,
            groups=groups,
        )


def _pool(g: Grower, x: str, shape: tuple, rank: int) -> None:
    at = g.draw(st.integers(0, rank - 1))
    if isinstance(shape[at], int) and shape[at] >= 3 and all(d != 0 for d in shape):
        window, strides, low = [1] * rank, [1] * rank, [0] * rank
        window[at], strides[at], low[at] = 3, g.draw(st.integers(1, 2)), g.draw(st.integers(0, 1))
        fn = g.draw(st.sampled_from(("max", "add")))
        attrs = {"window": window, "strides": strides, "dilations": [1] * rank, "low": low, "high": low}
        g.add("pool", x, fn=fn, **{key: tuple(v) for key, v in attrs.items()})


def _concat(g: Grower, x: str, shape: tuple, rank: int) -> None:
    same = [v for v in g.values if g.shape(v) == shape]
    g.add("concat", x, g.draw(st.sampled_from(same)), axis=g.draw(st.integers(0, rank - 1)))


def _gather(g: Grower, x: str, shape: tuple, rank: int) -> None:
    axis = g.draw(st.integers(0, rank - 1))
    if isinstance(shape[axis], int) and shape[axis]:
        extent = shape[axis]
        indices = g.draw(st.lists(st.integers(-extent, extent - 1), min_size=1, max_size=3))
        g.add("gather", x, g.builder.constant(np.array(indices)), axis=axis)


def _cumulate(g: Grower, x: str, shape: tuple, rank: int) -> None:
    exclusive, reverse = g.draw(st.booleans()), g.draw(st.booleans())
    g.add(
        "cumulate", x, fn="add", axis=g.draw(st.integers(0, rank - 1)), exclusive=exclusive, reverse=reverse
    )


_GROWERS = {
    name.strip("_"): grow
    for name, grow in list(globals().items())
    if name.startswith("_") and callable(grow) and getattr(grow, "__annotations__", {}).get("g") == "Grower"
}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), symbolic=st.booleans(), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_random_graphs(data: st.DataObject, symbolic: bool, size: int, seed: int) -> None:
    grower = Grower(data, symbolic)
    for _ in range(size):
        grower.grow()
    graph = grower.finish()
    dims = {"n": data.draw(st.integers(1, 3))} if symbolic else {}
    check_calls(graph, dims=dims, seed=seed)
