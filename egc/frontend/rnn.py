"""RNN, GRU and LSTM, unrolled over a sequence of at most ``MAX_STEPS`` steps; longer ones go to the host.

The products with the input weights of all steps are one matrix product; a step then costs one product with
the recurrent weights. A step beyond a sample's own length keeps the state and outputs zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from egc.frontend.context import Context, NotCompiled, OnnxNode
from egc.frontend.registry import operator
from egc.ir.dims import Dim
from egc.ir.recurrent import Activation as Named
from egc.ir.recurrent import read_activations, read_direction

# A step is 10 to 25 nodes, so this bounds the graph to a few thousand nodes for each operator.
MAX_STEPS = 128

Activation = Callable[[str], str]
State = tuple[str, ...]
Step = Callable[[str, State], State]


class _Direction(Struct, frozen=True):
    """One direction's operands: input weights [I, G*H], recurrent weights [H, G*H], biases and peepholes."""

    w: str
    r: str
    w_bias: str | None
    r_bias: str | None
    peepholes: tuple[str, ...]
    activations: tuple[Activation, ...]


class _Layer(Struct, frozen=True):
    """The sequence [T, B, I] (time first), its lengths [B, 1], initial states [D, B, H] and directions."""

    x: str
    steps: int
    batch: Dim
    hidden: int
    lengths: str | None
    initial: tuple[str, ...]
    directions: tuple[_Direction, ...]
    backward: tuple[bool, ...]


@operator("RNN", family="rnn")
def rnn(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """h' = f(x W + h R + b)."""

    def cell(d: _Direction) -> Step:
        (f,) = d.activations

        def step(x: str, state: State) -> State:
            recurrent = _bias(ctx, _times(ctx, state[0], d.r), d.r_bias)
            return (f(ctx.map("add", x, recurrent)),)

        return step

    return _run(ctx, node, _read(ctx, node, gates=1, states=1, defaults=("Tanh",)), cell)


@operator("GRU", family="rnn")
def gru(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """z, r = f(…); n = g(x W + (r h) R); h' = (1 - z) n + z h; r after the product if linear_before_reset."""
    late = bool(node.attr("linear_before_reset", 0))

    def cell(d: _Direction) -> Step:
        f, g = d.activations

        def step(x: str, state: State) -> State:
            (h,) = state
            xz, xr, xn = _gates(ctx, x, 3)
            rz, rr, rn = _gates(ctx, d.r, 3)
            bz, br, bn = _gates(ctx, d.r_bias, 3) if d.r_bias else (None, None, None)
            z = f(ctx.map("add", xz, _bias(ctx, _times(ctx, h, rz), bz)))
            r = f(ctx.map("add", xr, _bias(ctx, _times(ctx, h, rr), br)))
            if late:
                fresh = ctx.map("mul", r, _bias(ctx, _times(ctx, h, rn), bn))
            else:
                fresh = _bias(ctx, _times(ctx, ctx.map("mul", r, h), rn), bn)
            n = g(ctx.map("add", xn, fresh))
            kept = ctx.map("mul", ctx.map("sub", ctx.like(1, z), z), n)
            return (ctx.map("add", kept, ctx.map("mul", z, h)),)

        return step

    return _run(ctx, node, _read(ctx, node, gates=3, states=1, defaults=("Sigmoid", "Tanh")), cell)


@operator("LSTM", family="rnn")
def lstm(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """i, o, f = gates; c' = f c + i g(…); h' = o h(c'); peepholes let the gates see c."""
    coupled = bool(node.attr("input_forget", 0))

    def cell(d: _Direction) -> Step:
        f, g, h_of = d.activations

        def seen(gate: str, c: str, peephole: int) -> str:
            return ctx.map("add", gate, ctx.map("mul", d.peepholes[peephole], c)) if d.peepholes else gate

        def step(x: str, state: State) -> State:
            h, c = state
            total = ctx.map("add", x, _bias(ctx, _times(ctx, h, d.r), d.r_bias))
            i, o, forget, fresh = _gates(ctx, total, 4)
            i = f(seen(i, c, 0))
            forget = ctx.map("sub", ctx.like(1, i), i) if coupled else f(seen(forget, c, 2))
            c = ctx.map("add", ctx.map("mul", forget, c), ctx.map("mul", i, g(fresh)))
            return ctx.map("mul", f(seen(o, c, 1)), h_of(c)), c

        return step

    defaults = ("Sigmoid", "Tanh", "Tanh")
    return _run(ctx, node, _read(ctx, node, gates=4, states=2, defaults=defaults), cell)


def _times(ctx: Context, a: str, b: str) -> str:
    return ctx.add("matmul", (a, b))


def _bias(ctx: Context, x: str, bias: str | None) -> str:
    return x if bias is None else ctx.map("add", x, bias)


def _gates(ctx: Context, value: str, count: int) -> list[str]:
    """``value`` [..., count * H] cut into its gates."""
    axis = ctx.rank(value) - 1
    size = ctx.shape(value)[axis]
    assert isinstance(size, int)
    return [ctx.slice_axis(value, axis, i * (size // count), size // count) for i in range(count)]


def _read(ctx: Context, node: OnnxNode, gates: int, states: int, defaults: tuple[str, ...]) -> _Layer:
    x, r = node.required(0), node.required(2)
    batch_first = bool(node.attr("layout", 0))
    if batch_first:
        x = ctx.transpose(x, (1, 0, 2))
    steps, batch, _ = ctx.shape(x)
    count, _, hidden = ctx.static_shape(r)
    try:
        backward = read_direction(node.attr("direction", "forward"), count)
        functions = read_activations(
            node.attr("activations"),
            node.attr("activation_alpha"),
            node.attr("activation_beta"),
            defaults,
            count,
        )
    except ValueError as error:
        ctx.fail(str(error))
    if not isinstance(steps, int) or steps > MAX_STEPS:
        raise NotCompiled(f"a sequence of {steps} steps; up to {MAX_STEPS} are unrolled")
    lengths = node.input(4)
    if lengths is not None:
        lengths = ctx.unsqueeze(ctx.cast(lengths, "int64"), (1,))
    initial = []
    for i in range(states):
        given = node.input(5 + i)
        if given is None:
            given = ctx.expand(ctx.like(0, x), (count, batch, hidden))
        elif batch_first:
            given = ctx.transpose(given, (1, 0, 2))
        initial.append(given)
    directions = tuple(
        _direction(ctx, node, i, gates, hidden, _activations(ctx, node, functions[i])) for i in range(count)
    )
    return _Layer(x, steps, batch, hidden, lengths, tuple(initial), directions, backward)


def _direction(
    ctx: Context, node: OnnxNode, index: int, gates: int, hidden: int, activations: tuple[Activation, ...]
) -> _Direction:
    def part(value: str) -> str:
        return ctx.squeeze(ctx.slice_axis(value, 0, index, 1), (0,))

    w = ctx.transpose(part(node.required(1)), (1, 0))
    r = ctx.transpose(part(node.required(2)), (1, 0))
    w_bias = r_bias = None
    if (bias := node.input(3)) is not None:
        both = part(bias)
        w_bias = ctx.slice_axis(both, 0, 0, gates * hidden)
        r_bias = ctx.slice_axis(both, 0, gates * hidden, gates * hidden)
    peepholes: tuple[str, ...] = ()
    if gates == 4 and (given := node.input(7)) is not None:
        peepholes = tuple(_gates(ctx, part(given), 3))
    return _Direction(w, r, w_bias, r_bias, peepholes, activations)


def _run(ctx: Context, node: OnnxNode, layer: _Layer, cell: Callable[[_Direction], Step]) -> list[str]:
    """Y [T, D, B, H] and the last states [D, B, H], batch first where ``layout`` says so."""
    columns: list[list[str]] = []
    finals: list[State] = []
    for index, direction in enumerate(layer.directions):
        outputs, state = _unroll(ctx, layer, index, direction, cell(direction))
        columns.append(outputs)
        finals.append(state)
    rows = [
        ctx.concat([ctx.unsqueeze(column[t], (0, 1)) for column in columns], 1) for t in range(layer.steps)
    ]
    y = ctx.concat(rows, 0)
    last = [
        ctx.concat([ctx.unsqueeze(state[i], (0,)) for state in finals], 0) for i in range(len(layer.initial))
    ]
    if node.attr("layout", 0):
        y = ctx.transpose(y, (2, 0, 1, 3))
        last = [ctx.transpose(v, (1, 0, 2)) for v in last]
    return [y, *last]


def _unroll(
    ctx: Context, layer: _Layer, index: int, direction: _Direction, step: Step
) -> tuple[list[str], State]:
    projected = _bias(ctx, _times(ctx, layer.x, direction.w), direction.w_bias)
    state: State = tuple(ctx.squeeze(ctx.slice_axis(value, 0, index, 1), (0,)) for value in layer.initial)
    outputs = [""] * layer.steps
    order = range(layer.steps)
    for t in reversed(order) if layer.backward[index] else order:
        after = step(ctx.squeeze(ctx.slice_axis(projected, 0, t, 1), (0,)), state)
        if layer.lengths is None:
            state, outputs[t] = after, after[0]
            continue
        alive = ctx.map("lt", ctx.scalar(t, "int64"), layer.lengths)
        state = tuple(ctx.map("select", alive, new, old) for new, old in zip(after, state, strict=True))
        outputs[t] = ctx.map("select", alive, after[0], ctx.like(0, after[0]))
    return outputs, state


def _activations(ctx: Context, node: OnnxNode, functions: Sequence[Named]) -> tuple[Activation, ...]:
    """The activation functions of a direction, their operands clipped where the node says so."""
    clip = node.attr("clip")
    return tuple(_clipped(ctx, _activation(ctx, function), clip) for function in functions)


def _clipped(ctx: Context, function: Activation, clip: float | None) -> Activation:
    if clip is None:
        return function
    bound = float(clip)
    return lambda x: function(ctx.map("min", ctx.map("max", x, ctx.like(-bound, x)), ctx.like(bound, x)))


def _activation(ctx: Context, function: Named) -> Activation:
    kind, alpha, beta = function.kind, function.alpha, function.beta
    if kind in ("relu", "tanh", "sigmoid", "softplus"):
        return lambda x: ctx.map(kind, x)
    if kind == "softsign":
        return lambda x: ctx.map("div", x, ctx.map("add", ctx.like(1, x), ctx.map("abs", x)))

    def scaled(x: str) -> str:
        return ctx.map("mul", ctx.like(alpha, x), x)

    def affine(x: str) -> str:
        return ctx.map("add", scaled(x), ctx.like(beta, x))

    def where(condition: str, x: str, bound: float, other: str) -> str:
        return ctx.map("select", ctx.map(condition, x, ctx.like(bound, x)), x, other)

    forms: dict[str, Activation] = {
        "affine": affine,
        "leakyrelu": lambda x: where("ge", x, 0.0, scaled(x)),
        "thresholdedrelu": lambda x: where("gt", x, alpha, ctx.like(0, x)),
        "scaledtanh": lambda x: ctx.map(
            "mul", ctx.like(alpha, x), ctx.map("tanh", ctx.map("mul", ctx.like(beta, x), x))
        ),
        "hardsigmoid": lambda x: ctx.map("max", ctx.map("min", affine(x), ctx.like(1, x)), ctx.like(0, x)),
        "elu": lambda x: where("ge", x, 0.0, scaled(ctx.map("sub", ctx.map("exp", x), ctx.like(1, x)))),
    }
    return forms[kind]
