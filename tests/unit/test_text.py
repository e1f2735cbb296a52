"""Text forms parse back to what printed them; damaged texts are refused with line and column."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egc.ir.dims import Dim, ceildiv, dim_max, dim_min, floordiv, mod, symbol
from egc.ir.expr import Acc, Cast, Const, Expr, Index, Load, call
from egc.ir.graph import Constant, Graph, GraphBuilder, Placeholder
from egc.ir.kernel import Axis, Buffer, Kernel, Stage
from egc.ir.nest import Loop, Nest, Pack
from egc.ir.text import parse_graph, parse_kernel, parse_nest
from egc.ir.text_expr import ExprReader, TextError
from egc.ir.types import TensorType

N, H = symbol("n"), symbol("h")


def small_graph() -> tuple[Graph, Constant]:
    builder = GraphBuilder("net")
    builder.input("x", TensorType("float32", (symbol("batch"), 4)))
    weights = np.arange(8, dtype=np.float32).reshape(4, 2)
    w = builder.constant(weights, "w/1")
    product = builder.add("matmul", ["x", w], ("node 'a, b' (MatMul)",), name="y.0")
    half = builder.constant(np.float32(-math.inf))
    clipped = builder.add("map", [product, half], ("first", "second # from"), fn="max")
    sliced = builder.add("slice", [clipped], starts=(symbol("batch") - 1, 0), sizes=(1, 2), steps=(-1, 1))
    values, places = builder.add_multi("topk", [sliced], k=(1,), axis=1, largest=True)
    normal = builder.add(
        "rms_norm", [values, builder.constant(np.ones(1, np.float32))], axes=(1,), epsilon=1e-6
    )
    hosted = builder.add("host", [normal], node='q"{', types="float32[a, 2]")
    return builder.finish([hosted, places, "x"]), Constant(weights)


def assert_refused(parse: Callable[[str], object], text: str, pointed: str, why: str) -> None:
    """``parse`` refuses ``text`` with a reason that holds ``why``, at the place where ``pointed`` begins."""
    with pytest.raises(TextError) as caught:
        parse(text)
    error = caught.value
    assert why in error.why
    assert text.splitlines()[error.line - 1][error.column - 1 :].startswith(pointed)


def same_graph(a: Graph, b: Graph) -> bool:
    keys = ("name", "inputs", "outputs", "nodes")
    return all(getattr(a, k) == getattr(b, k) for k in keys) and dict(a.types) == dict(b.types)


def test_graph_round_trip() -> None:
    graph, weights = small_graph()
    parsed = parse_graph(str(graph))
    assert same_graph(parsed, graph)
    assert str(parsed) == str(graph)
    assert dict(parsed.constants) == dict(graph.constants)
    placeholder = parsed.constants["w/1"]
    assert isinstance(placeholder, Placeholder) and placeholder == weights
    with pytest.raises(ValueError, match="is not at hand"):
        _ = placeholder.data
    full = parse_graph(str(graph), {weights.digest: weights.data})
    np.testing.assert_array_equal(full.constants["w/1"].data, weights.data)


@pytest.mark.parametrize(
    "old,new,pointed,why",
    [
        ("= matmul(", "= matmull(", "matmull(", "there is no operator 'matmull'"),
        ("matmul(%x, ", "matmul(%z, ", "%z,", "%z is not defined above"),
        ('{fn="max"}', "{fn=max}", "max}", "expected a text in double quotes"),
        ("float32[batch, 4]", "float33[batch, 4]", "float33[", "unknown dtype 'float33'"),
        ("largest=true", "largest=yes", "yes}", "'yes' is not of the kind bool"),
        ("  return", "  give", "give", "expected %value = op"),
        ("splat -inf", "splat lots", "lots", "'lots' is not a number"),
    ],
)
def test_graph_errors(old: str, new: str, pointed: str, why: str) -> None:
    text = str(small_graph()[0])
    assert old in text
    assert_refused(parse_graph, text.replace(old, new, 1), pointed, why)


def conv_kernel() -> Kernel:
    """A padded 1-D convolution with bias and ReLU, and a softmax stage pair with a local buffer."""
    x = Load("x", (N, H + symbol("k") - 1), "float32", ((H + symbol("k") - 1, 56),), Const(0.0, "float32"))
    w = Load("w", (symbol("k"),), "float32")
    bias = call("add", Acc("float32"), Load("b", (0,), "float32"))
    conv = Stage(
        "conv",
        (Axis("n", symbol("batch")), Axis("h", 56)),
        "t",
        (N, H),
        call("mul", x, w),
        call("max", bias, Const(0.0, "float32")),
        (Axis("k", 3),),
        "add",
    )
    picked = Load("t", (N, Load("i", (H,), "int64")), "float32")
    mask = call("and", call("lt", Index(H), Const(5, "int64")), call("not", Const(False, "bool")))
    value = call("select", mask, Cast(picked, "float16"), Const(-math.inf, "float16"))
    gather = Stage(
        "gather",
        (Axis("n", symbol("batch")), Axis("h", 56)),
        "y",
        (N, 55 - H),
        value,
        value,
        mode="add",
        ordered=True,
    )
    buffers = (
        Buffer("x", TensorType("float32", (symbol("batch"), 56)), "in"),
        Buffer("w", TensorType("float32", (3,)), "in", constant=True),
        Buffer("b", TensorType("float32", (1,)), "in"),
        Buffer("i", TensorType("int64", (56,)), "in"),
        Buffer("y", TensorType("float16", (symbol("batch"), 56)), "out"),
        Buffer("t", TensorType("float32", (symbol("batch"), 56)), "local"),
    )
    return Kernel("conv_gather", buffers, (conv, gather), shared=1)


def test_kernel_round_trip() -> None:
    kernel = conv_kernel()
    assert parse_kernel(str(kernel)) == kernel


def test_scalar_kernel_round_trip() -> None:
    value = call("add", Load("x", (), "float32"), Const(1.5, "float32"))
    buffers = (Buffer("x", TensorType("float32", ()), "in"), Buffer("y", TensorType("float32", ()), "out"))
    kernel = Kernel("one", buffers, (Stage("s", (), "y", (), value, value),))
    assert parse_kernel(str(kernel)) == kernel


@pytest.mark.parametrize(
    "old,new,pointed,why",
    [
        ("value = mul(", "value = mull(", "mull(", "there is no scalar function 'mull'"),
        ("w[k]", "v[k]", "v[k]", "there is no buffer 'v'"),
        ("reduce add", "reduce plus", "plus", "'plus' is no way to combine"),
        ("float16(-inf)", "float16(x)", "x)", "not a literal"),
        ("lt(index(h), 5)", "lt(index(h))", "lt(", "lt takes 2 operands, not 1"),
        ("acc", "value +", ", b[0]", "not an expression: invalid syntax"),
    ],
)
def test_kernel_errors(old: str, new: str, pointed: str, why: str) -> None:
    text = str(conv_kernel())
    assert old in text
    assert_refused(parse_kernel, text.replace(old, new, 1), pointed, why)


def test_nest_round_trip() -> None:
    stages = (
        (Loop("h", 8, "seq"), Loop("k", 1, "unroll"), Loop("h", 1, "vec")),
        (Loop("h", 1, "seq"),),
    )
    nest = Nest(conv_kernel(), stages, (Loop("n", 1, "par"),), (Pack("w", 0, 8),))
    assert parse_nest(str(nest)) == nest
    with pytest.raises(TextError, match="'vector' is none of par"):
        parse_nest(str(nest).replace("1 vec", "1 vector"))
    with pytest.raises(TextError, match=r"loops for the stages gather; the kernel has conv, gather"):
        parse_nest(str(nest).replace("do conv\n", ""))


dims = st.recursive(
    st.one_of(st.integers(-9, 99), st.sampled_from(["n", "h", "batch"]).map(symbol)),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a + b, inner, inner),
        st.builds(lambda a, b: a * b, inner, inner),
        st.builds(lambda a, b: a - b, inner, inner),
        *(st.builds(fn, inner, st.integers(1, 9)) for fn in (floordiv, mod, ceildiv)),
        *(st.builds(fn, inner, inner) for fn in (dim_min, dim_max)),
    ),
    max_leaves=6,
)


def loads(index: st.SearchStrategy[Dim]) -> st.SearchStrategy[Expr]:
    plain = st.builds(lambda i, j: Load("x", (i, j), "float32"), index, index)
    indirect = st.builds(lambda i, j: Load("x", (Load("i", (i,), "int64"), j), "float32"), index, index)
    other = st.sampled_from([Const(0.0, "float32"), Const(-math.inf, "float32")])
    guarded = st.builds(
        lambda i, j, e, o: Load("x", (i, j), "float32", ((i, e), (j, 7)), o),
        index,
        index,
        st.integers(1, 9),
        other,
    )
    return st.one_of(plain, indirect, guarded)


floats = st.floats(allow_nan=False, width=32).map(lambda v: Const(v, "float32"))
expressions = st.recursive(
    st.one_of(loads(dims), floats, dims.map(lambda d: Cast(Index(d), "float32"))),
    lambda inner: st.one_of(
        *(st.builds(lambda a, b, fn=fn: call(fn, a, b), inner, inner) for fn in ("add", "max", "mod", "div")),
        *(st.builds(lambda a, fn=fn: call(fn, a), inner) for fn in ("exp", "silu")),
        st.builds(
            lambda a, b, c: call("select", call("or", call("lt", a, b), call("not", call("isnan", c))), b, c),
            inner,
            inner,
            inner,
        ),
        st.builds(lambda a: Cast(Cast(a, "bfloat16"), "float32"), inner),
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(expressions)
def test_expressions_round_trip(expr: Expr) -> None:
    reader = ExprReader({"x": "float32", "i": "int64"})
    assert reader.expr(str(expr), 1, 1) == expr
