"""The optimisers of ai.onnx.preview.training: elementwise updates of every tensor and its state."""

from __future__ import annotations

from collections.abc import Sequence

from egc.frontend.context import Context, OnnxNode
from egc.frontend.registry import operator

DOMAIN = "ai.onnx.preview.training"


def _grouped(ctx: Context, node: OnnxNode, states: int) -> list[tuple[str, ...]]:
    """The operands after rate and step count: (tensor, gradient, state…) for each tensor to update."""
    rest = [node.required(i) for i in range(2, len(node.inputs))]
    kinds = 2 + states
    if len(rest) % kinds:
        ctx.fail(f"{len(rest)} operands do not part into {kinds} of each tensor")
    count = len(rest) // kinds
    return [tuple(rest[kind * count + i] for kind in range(kinds)) for i in range(count)]


def _scaled(ctx: Context, value: str, factor: float) -> str:
    return ctx.map("mul", ctx.like(factor, value), value)


def _regularized(ctx: Context, node: OnnxNode, x: str, gradient: str) -> str:
    return ctx.map("add", _scaled(ctx, x, float(node.attr("norm_coefficient", 0.0))), gradient)


def _scalar(ctx: Context, value: str, dtype: str) -> str:
    return ctx.cast(ctx.reshape(value, ()), dtype)


@operator("Adagrad", family="training", domain=DOMAIN)
def adagrad(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """x - rate / (1 + decay * step) * g / (sqrt(h) + epsilon), where h sums the squares of g."""
    groups = _grouped(ctx, node, states=1)
    tensors, states = [], []
    for x, gradient, history in groups:
        dtype = ctx.dtype(x)
        rate, step = _scalar(ctx, node.required(0), dtype), _scalar(ctx, node.required(1), dtype)
        decay = ctx.map("add", ctx.like(1, x), _scaled(ctx, step, float(node.attr("decay_factor", 0.0))))
        gradient = _regularized(ctx, node, x, gradient)
        history = ctx.map("add", history, ctx.map("mul", gradient, gradient))
        root = ctx.map("add", ctx.map("sqrt", history), ctx.like(float(node.attr("epsilon", 1e-6)), x))
        change = ctx.map("div", ctx.map("mul", ctx.map("div", rate, decay), gradient), root)
        tensors.append(ctx.map("sub", x, change))
        states.append(history)
    return [*tensors, *states]


@operator("Adam", family="training", domain=DOMAIN)
def adam(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Kingma & Ba, arXiv:1412.6980, algorithm 1, the bias correction gathered into the rate."""
    alpha, beta = float(node.attr("alpha", 0.9)), float(node.attr("beta", 0.999))
    after = 1 - float(node.attr("norm_coefficient_post", 0.0))
    tensors, firsts, seconds = [], [], []
    for x, gradient, first, second in _grouped(ctx, node, states=2):
        dtype = ctx.dtype(x)
        gradient = _regularized(ctx, node, x, gradient)
        first = ctx.map("add", _scaled(ctx, first, alpha), _scaled(ctx, gradient, 1 - alpha))
        square = ctx.map("mul", gradient, gradient)
        second = ctx.map("add", _scaled(ctx, second, beta), _scaled(ctx, square, 1 - beta))
        rate, step = _scalar(ctx, node.required(0), dtype), _scalar(ctx, node.required(1), dtype)
        corrected = ctx.map(
            "div", ctx.map("mul", rate, _bias(ctx, beta, step, root=True)), _bias(ctx, alpha, step)
        )
        started = ctx.map("gt", step, ctx.like(0, step))
        rate = ctx.map("select", started, corrected, rate)
        root = ctx.map("add", ctx.map("sqrt", second), ctx.like(float(node.attr("epsilon", 1e-6)), x))
        moved = ctx.map("sub", x, ctx.map("div", ctx.map("mul", rate, first), root))
        tensors.append(_scaled(ctx, moved, after))
        firsts.append(first)
        seconds.append(second)
    return [*tensors, *firsts, *seconds]


def _bias(ctx: Context, decay: float, step: str, root: bool = False) -> str:
    """1 - decay ** step, or its square root."""
    out = ctx.map("sub", ctx.like(1, step), ctx.map("pow", ctx.like(decay, step), step))
    return ctx.map("sqrt", out) if root else out


@operator("Momentum", family="training", domain=DOMAIN)
def momentum(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """v = alpha v + beta g (beta is 1 at first); x - rate v, or in Nesterov's form x - rate (g + alpha v)."""
    alpha, beta = float(node.attr("alpha", 0.9)), float(node.attr("beta", 1.0))
    tensors, states = [], []
    for x, gradient, velocity in _grouped(ctx, node, states=1):
        dtype = ctx.dtype(x)
        gradient = _regularized(ctx, node, x, gradient)
        rate, step = _scalar(ctx, node.required(0), dtype), _scalar(ctx, node.required(1), dtype)
        weight = ctx.map("select", ctx.map("gt", step, ctx.like(0, step)), ctx.like(beta, x), ctx.like(1, x))
        velocity = ctx.map("add", _scaled(ctx, velocity, alpha), ctx.map("mul", weight, gradient))
        change = velocity
        if node.attr("mode") == "nesterov":
            change = ctx.map("add", gradient, _scaled(ctx, velocity, alpha))
        tensors.append(ctx.map("sub", x, ctx.map("mul", rate, change)))
        states.append(velocity)
    return [*tensors, *states]
