"""Sliding windows of convolutions and poolings: sizes, strides, dilations and padding of spatial axes."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from egc.frontend.context import Context, NotCompiled, OnnxNode
from egc.ir.dims import Dim, dim_max, floordiv, mod


class Windows(Struct, frozen=True):
    """The windows over the spatial axes of a value ``[N, C, spatial…]``: one entry for each spatial axis."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]

    @property
    def spans(self) -> tuple[int, ...]:
        """How far each window reaches: (size - 1) * dilation + 1."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.sizes, self.dilations, strict=True))

    @property
    def padded(self) -> bool:
        """Whether any axis is padded."""
        return any(self.low) or any(self.high)

    def along(self, axis: int) -> Windows:
        """The windows over one of the spatial axes."""
        here = slice(axis, axis + 1)
        return Windows(
            self.sizes[here], self.strides[here], self.dilations[here], self.low[here], self.high[here]
        )

    def outputs(self, extents: Sequence[Dim]) -> tuple[Dim, ...]:
        """The number of windows along each axis."""
        return tuple(
            floordiv(n + low + high - span, stride) + 1
            for n, low, high, span, stride in zip(
                extents, self.low, self.high, self.spans, self.strides, strict=True
            )
        )

    def counts(self, extents: Sequence[int]) -> tuple[int, ...]:
        """The number of windows along each axis of known extent."""
        found = self.outputs(extents)
        return tuple(n for n in found if isinstance(n, int))


def read_windows(
    ctx: Context, node: OnnxNode, x: str, sizes: Sequence[Dim], fill: float = 0.0
) -> tuple[str, Windows]:
    """The windows that ``node`` slides over ``x``, and ``x`` itself.

    Where padding depends on a symbolic extent (auto_pad SAME with a stride), ``x`` is padded here with
    ``fill`` and the windows have no padding.
    """
    if any(not isinstance(k, int) for k in sizes):
        raise NotCompiled("the window's size is known only at run time")
    rank = len(sizes)
    if ctx.rank(x) != rank + 2:
        ctx.fail(
            f"the window has {rank} axes and the operand {ctx.type(x)} has {ctx.rank(x) - 2} spatial ones"
        )
    strides, dilations = (_entries(ctx, node, name, rank) for name in ("strides", "dilations"))
    windows = Windows(tuple(map(int, sizes)), strides, dilations, (0,) * rank, (0,) * rank)  # type: ignore[arg-type]
    if any(v < 1 for v in (*windows.sizes, *strides, *dilations)):
        ctx.fail("kernel_shape, strides and dilations must be positive")
    if (same := same_padding(node)) is not None:
        return pad_same(ctx, x, windows, same, fill)
    if node.attr("auto_pad", "NOTSET") == "VALID":
        return x, windows
    pads = tuple(int(p) for p in node.attr("pads", (0,) * (2 * rank)))
    if len(pads) != 2 * rank:
        ctx.fail(f"pads has {len(pads)} entries; {rank} spatial axes need {2 * rank}")
    if min(pads, default=0) < 0:
        raise NotCompiled("negative padding")
    return x, replace(windows, low=pads[:rank], high=pads[rank:])


def _entries(ctx: Context, node: OnnxNode, name: str, rank: int) -> tuple[int, ...]:
    values = tuple(int(v) for v in node.attr(name) or (1,) * rank)
    if len(values) != rank:
        ctx.fail(f"{name} has {len(values)} entries, the operand has {rank} spatial axes")
    return values


def same_padding(node: OnnxNode) -> str | None:
    """SAME_UPPER or SAME_LOWER where the node's ``auto_pad`` is one of them."""
    mode = node.attr("auto_pad", "NOTSET")
    return mode if mode in ("SAME_UPPER", "SAME_LOWER") else None


def pad_same(ctx: Context, x: str, windows: Windows, mode: str, fill: float) -> tuple[str, Windows]:
    """Pad so that there are ceil(extent / stride) windows; SAME_UPPER puts the odd element at the end.

    A known extent is padded as far as its last window reaches, a symbolic one by span - 1 in all: as many
    windows begin at the same places, and what follows has the extent (extent - 1) // stride + 1, as simple as
    after padding that the model states.
    """
    low: list[Dim] = []
    high: list[Dim] = []
    for extent, span, stride in zip(ctx.shape(x)[2:], windows.spans, windows.strides, strict=True):
        total = dim_max(mod(-extent, stride) + span - stride, 0) if isinstance(extent, int) else span - 1
        low.append(_same_low(extent, span, stride, mode == "SAME_UPPER"))
        high.append(total - low[-1])
    if all(isinstance(v, int) for v in (*low, *high)):
        return x, replace(windows, low=tuple(low), high=tuple(high))
    zeros = (0,) * ctx.rank(x)
    value = ctx.like(fill, x)
    padded = ctx.add("pad", (x, value), low=(0, 0, *low), high=(0, 0, *high), interior=zeros)
    return padded, windows


def _same_low(extent: Dim, span: int, stride: int, upper: bool) -> Dim:
    """The padding before the first of ceil(extent / stride) windows, half of what they need in all:
    max((ceil(extent / stride) - 1) * stride + span - extent, 0) / 2, rounded up unless ``upper``.
    """
    if span == 1:
        return 0
    beyond = mod(-extent, stride)  # stride * ceil(extent / stride) - extent
    rest = span - stride
    if stride == 2:
        # Then it is 0 or 1, which the half of an odd rest carries over and that of an even one drops.
        half, odd = divmod(rest + (not upper), 2)
        return half + odd * beyond
    total = beyond + rest if rest >= 0 else dim_max(beyond + rest, 0)
    return floordiv(total + (not upper), 2)


def round_up(ctx: Context, x: str, windows: Windows) -> Windows:
    """``windows`` under ceil_mode: padded at the end so far that a last, partial window counts.

    That takes at most stride - 1 elements. A window that would start in the padding at the end does not
    count: the last that may start begins with the operand's last element and has span - 1 beyond it.
    """
    high = []
    for i, extent in enumerate(ctx.shape(x)[2:]):
        low, stride, span = windows.low[i], windows.strides[i], windows.spans[i]
        most = min(windows.high[i] + stride - 1, span - 1)
        if isinstance(extent, int):
            # No further than the last window reaches: windows that need no padding need no guard.
            most = max(most - (extent + low + most - span) % stride, 0)
        high.append(most)
    return replace(windows, high=tuple(high))
