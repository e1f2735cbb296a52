"""Small builders of kernels for tests of the scheduler: one for each shape of computation that it has to
know.
"""

from __future__ import annotations

from msgspec.structs import replace

from egc.ir.dims import Dim, symbol
from egc.ir.expr import Acc, Const, Expr, Load, call
from egc.ir.kernel import Axis, Buffer, Kernel, Stage
from egc.ir.types import TensorType

F32 = "float32"


def buffer(name: str, role: str, *shape: Dim, constant: bool = False, dtype: str = F32) -> Buffer:
    return Buffer(name, TensorType(dtype, shape), role, constant)


def product(m: Dim, k: Dim, n: Dim, constant: bool = True, dtype: str = F32) -> Kernel:
    """y[m, n] = max(a[m, k] · b[k, n] + bias[n], 0)."""
    i, j, r = map(symbol, ("m", "n", "k"))
    value = call("mul", Load("a", (i, r), dtype), Load("b", (r, j), dtype))
    zero = Const(0.0 if dtype.startswith("float") else 0, dtype)
    result = call("max", call("add", Acc(dtype), Load("bias", (j,), dtype)), zero)
    stage = Stage("product", (Axis("m", m), Axis("n", n)), "y", (i, j), value, result, (Axis("k", k),), "add")
    buffers = (
        buffer("a", "in", m, k, dtype=dtype),
        buffer("b", "in", k, n, constant=constant, dtype=dtype),
        buffer("bias", "in", n, constant=True, dtype=dtype),
        buffer("y", "out", m, n, dtype=dtype),
    )
    return Kernel("product", buffers, (stage,))


def residual(m: Dim, k: Dim, n: Dim) -> Kernel:
    """y[m, n] = a[m, k] · b[k, n] + x[m, n]."""
    plain = product(m, k, n)
    a, b, _, y = plain.params
    stage = plain.stages[0]
    index = tuple(symbol(axis.name) for axis in stage.axes)
    result = call("add", Acc(F32), Load("x", index, F32))
    return Kernel("residual", (a, b, buffer("x", "in", m, n), y), (replace(stage, result=result),))


def convolution(size: int, inner: int, outer: int, window: int, stride: int = 1) -> Kernel:
    """Channels last, no padding."""
    out = (size - window) // stride + 1
    h, w, o, u, v, c = map(symbol, ("h", "w", "o", "u", "v", "c"))
    pixel = Load("x", (h * stride + u, w * stride + v, c), F32)
    value = call("mul", pixel, Load("k", (u, v, c, o), F32))
    axes = (Axis("h", out), Axis("w", out), Axis("o", outer))
    reduce = (Axis("u", window), Axis("v", window), Axis("c", inner))
    stage = Stage("convolution", axes, "y", (h, w, o), value, call("relu", Acc(F32)), reduce, "add")
    buffers = (
        buffer("x", "in", size, size, inner),
        buffer("k", "in", window, window, inner, outer, constant=True),
        buffer("y", "out", out, out, outer),
    )
    return Kernel("convolution", buffers, (stage,))


def windowed(size: int, channels: int, combine: str, stride: int = 1) -> Kernel:
    """3x3 depthwise convolution (add) or pooling (max), channels last, one pixel of implicit padding."""
    out = (size - 1) // stride + 1
    h, w, c, u, v = map(symbol, ("h", "w", "c", "u", "v"))
    at = (h * stride + u - 1, w * stride + v - 1)
    other = Const(0.0 if combine == "add" else float("-inf"), F32)
    value: Expr = Load("x", (*at, c), F32, tuple((position, size) for position in at), other)
    buffers = [buffer("x", "in", size, size, channels)]
    if combine == "add":
        value = call("mul", value, Load("k", (u, v, c), F32))
        buffers.append(buffer("k", "in", 3, 3, channels, constant=True))
    axes = (Axis("h", out), Axis("w", out), Axis("c", channels))
    stage = Stage("window", axes, "y", (h, w, c), value, Acc(F32), (Axis("u", 3), Axis("v", 3)), combine)
    return Kernel("windowed", (*buffers, buffer("y", "out", out, out, channels)), (stage,))


def elementwise(rows: Dim, columns: Dim, fn: str = "gelu_erf") -> Kernel:
    """y[i, j] = fn(x[i, j] + bias[j])."""
    i, j = symbol("i"), symbol("j")
    value = call(fn, call("add", Load("x", (i, j), F32), Load("bias", (j,), F32)))
    stage = Stage("map", (Axis("i", rows), Axis("j", columns)), "y", (i, j), value, value)
    buffers = (
        buffer("x", "in", rows, columns),
        buffer("bias", "in", columns),
        buffer("y", "out", rows, columns),
    )
    return Kernel("elementwise", buffers, (stage,))


def transpose(rows: Dim, columns: Dim) -> Kernel:
    """y[i, j] = x[j, i]."""
    i, j = symbol("i"), symbol("j")
    value = Load("x", (j, i), F32)
    stage = Stage("transpose", (Axis("i", rows), Axis("j", columns)), "y", (i, j), value, value)
    return Kernel(
        "transpose", (buffer("x", "in", columns, rows), buffer("y", "out", rows, columns)), (stage,)
    )


def reduction(rows: Dim, columns: Dim, combine: str = "add", dtype: str = F32) -> Kernel:
    """y[r] = the combined row x[r, :]."""
    r, i = symbol("r"), symbol("i")
    stage = Stage(
        "reduce",
        (Axis("r", rows),),
        "y",
        (r,),
        Load("x", (r, i), dtype),
        Acc(dtype),
        (Axis("i", columns),),
        combine,
    )
    return Kernel(
        "reduction",
        (buffer("x", "in", rows, columns, dtype=dtype), buffer("y", "out", rows, dtype=dtype)),
        (stage,),
    )


def softmax(rows: Dim, columns: Dim) -> Kernel:
    """exp(x - max) / sum, row by row: four stages that share the rows."""
    r, i = symbol("r"), symbol("i")
    row, along = Axis("r", rows), Axis("i", columns)
    x, e = Load("x", (r, i), F32), Load("e", (r, i), F32)
    exp = call("exp", call("sub", x, Load("most", (r,), F32)))
    scaled = call("mul", e, Load("total", (r,), F32))
    stages = (
        Stage("most", (row,), "most", (r,), x, Acc(F32), (along,), "max"),
        Stage("exp", (row, along), "e", (r, i), exp, exp),
        Stage("total", (row,), "total", (r,), e, call("reciprocal", Acc(F32)), (along,), "add"),
        Stage("scale", (row, along), "y", (r, i), scaled, scaled),
    )
    params = (buffer("x", "in", rows, columns), buffer("y", "out", rows, columns))
    local = (
        buffer("most", "local", rows),
        buffer("e", "local", rows, columns),
        buffer("total", "local", rows),
    )
    return Kernel("softmax", (*params, *local), stages, 1)


def attention(heads: Dim, rows: Dim, width: int) -> Kernel:
    """softmax(q kᵀ) v for every head: stages that share heads and rows of q."""
    h, q, s, e = map(symbol, ("h", "q", "s", "e"))
    shared = (Axis("h", heads), Axis("q", rows))
    others, inside = Axis("s", rows), Axis("e", width)
    score = Load("score", (h, q, s), F32)
    exp = call("exp", call("sub", score, Load("most", (h, q), F32)))
    stages = (
        Stage(
            "scores", (*shared, others), "score", (h, q, s),
            call("mul", Load("query", (h, q, e), F32), Load("key", (h, s, e), F32)), Acc(F32),
            (inside,), "add",
        ),
        Stage("most", shared, "most", (h, q), score, Acc(F32), (others,), "max"),
        Stage("exp", (*shared, others), "score", (h, q, s), exp, exp),
        Stage("total", shared, "total", (h, q), score, Acc(F32), (others,), "add"),
        Stage(
            "mix", (*shared, inside), "y", (h, q, e), call("mul", score, Load("value", (h, s, e), F32)),
            call("div", Acc(F32), Load("total", (h, q), F32)), (others,), "add",
        ),
    )  # fmt: skip
    names = ("query", "key", "value")
    params = (
        *(buffer(name, "in", heads, rows, width) for name in names),
        buffer("y", "out", heads, rows, width),
    )
    local = (
        buffer("score", "local", heads, rows, rows),
        buffer("most", "local", heads, rows),
        buffer("total", "local", heads, rows),
    )
    return Kernel("attention", (*params, *local), stages, 2)


def concat(rows: int, *widths: int) -> Kernel:
    """y[:, offset + i] = operand[:, i]: one stage an operand."""
    r, i = symbol("r"), symbol("i")
    stages, buffers, offset = [], [], 0
    for position, width in enumerate(widths):
        value = Load(f"x{position}", (r, i), F32)
        axes = (Axis("r", rows), Axis("i", width))
        stages.append(Stage(f"copy{position}", axes, "y", (r, i + offset), value, value))
        buffers.append(buffer(f"x{position}", "in", rows, width))
        offset += width
    return Kernel("concat", (*buffers, buffer("y", "out", rows, offset)), tuple(stages))
