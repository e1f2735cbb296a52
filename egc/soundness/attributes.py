"""Random attributes that an operator takes with operands that are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from egc.ir.scalar import FUNCTIONS
from egc.ir.types import FLOATS, TensorType
from egc.soundness.context import Attrs, Context, Operands, regrouped, takes
from egc.soundness.values import Perm


def _first(operands: Operands) -> TensorType:
    assert operands[0] is not None
    return operands[0]


def _fn(operands: Operands, attrs: Attrs, c: Context) -> str:
    """A scalar function of as many operands; for a rule that names none, any."""
    arity = len(operands)
    dtype = next((t.dtype for t in operands[-2:] if t is not None), c.dtype)
    return c.rng.choice(
        [name for name, fn in FUNCTIONS.items() if fn.arity == arity and takes(name, dtype)] or ["add"]
    )


def _reduce_fn(operands: Operands, attrs: Attrs, c: Context) -> str:
    return c.rng.choice(("and", "or") if _first(operands).dtype == "bool" else ("add", "mul", "max", "min"))


def _axes(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    rank = _first(operands).rank
    axes = sorted(c.rng.sample(range(rank), c.rng.randint(min(1, rank), rank)))
    if c.chance(0.2):
        c.rng.shuffle(axes)
    return tuple(axes)


def _last_axes(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    rank = _first(operands).rank
    return tuple(range(c.axis(rank), rank)) if c.chance(0.5) else (c.axis(rank),)


def _axis(operands: Operands, attrs: Attrs, c: Context) -> int:
    return c.axis(_first(operands).rank)


def _concat_axis(operands: Operands, attrs: Attrs, c: Context) -> int:
    a, b = operands
    assert a is not None and b is not None
    differing = [i for i, (m, n) in enumerate(zip(a.extents, b.extents, strict=False)) if m != n]
    return differing[0] if differing else c.axis(a.rank)


def _bool(operands: Operands, attrs: Attrs, c: Context) -> bool:
    return c.chance(0.5)


def _groups(operands: Operands, attrs: Attrs, c: Context, last: bool = False) -> int:
    x, w = operands[0], operands[1]
    if x is None:
        return 1
    channels = x.extents[-1 if last else 1] if x.rank > 1 else 1
    if w is not None:
        depth = w.extents[-2 if last else 1] if w.rank > 1 else 0
        return channels // depth if depth else 1
    divisors = [g for g in range(1, channels + 1) if channels % g == 0] or [1]
    return c.rng.choice((1, c.rng.choice(divisors), divisors[-1]))


def _spatial(operands: Operands, last: bool) -> list[tuple[int, int]]:
    """(extent, taps) of each spatial axis of a convolution."""
    x, w = operands
    assert x is not None and w is not None
    return list(
        zip(x.extents[1:-1], w.extents[:-2], strict=False)
        if last
        else zip(x.extents[2:], w.extents[2:], strict=False)
    )


def _strides(windows: Sequence[tuple[int, int]], c: Context) -> tuple[int, ...]:
    return tuple(c.rng.choice((1, 1, 2, 3)) for _ in windows)


def _dilations(windows: Sequence[tuple[int, int]], c: Context) -> tuple[int, ...]:
    return tuple(
        2 if taps > 1 and (taps - 1) * 2 < extent and c.chance(0.3) else 1 for extent, taps in windows
    )


def _padding(windows: Sequence[tuple[int, int]], c: Context) -> tuple[int, ...]:
    none = c.chance(0.3)
    return tuple(0 if none or taps == 0 else c.rng.randint(0, max(taps - 1, 1)) for _, taps in windows)


def _of_conv(
    choose: Callable[..., tuple[int, ...]], last: bool
) -> Callable[[Operands, Attrs, Context], tuple[int, ...]]:
    return lambda operands, attrs, c: choose(_spatial(operands, last), c)


def _of_pool(choose: Callable[..., tuple[int, ...]]) -> Callable[[Operands, Attrs, Context], tuple[int, ...]]:
    return lambda operands, attrs, c: choose(
        [
            (d, k) if k > 1 else (d, 0)
            for d, k in zip(_first(operands).extents, attrs["window"], strict=False)
        ],
        c,
    )


def _window(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return tuple(c.rng.randint(1, min(3, d)) if d and c.chance(0.6) else 1 for d in _first(operands).extents)


def _new_shape(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return regrouped(_first(operands).extents, c)


def _wider_shape(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    # A scalar fits any shape.
    lead = c.shape(c.rng.choice((0, 0, 0, 1) if _first(operands).rank else (0, 1, 2, 3)))
    return (*lead, *(c.extent() if d == 1 and c.chance(0.7) else d for d in _first(operands).extents))


def _perm(operands: Operands, attrs: Attrs, c: Context) -> Perm:
    rank = _first(operands).rank
    axes = c.rng.sample(range(rank), rank)
    return Perm(tuple(axes), tuple(axes.index(i) for i in range(rank)))


_STEPS = (1, 1, 2, -1, -2)


def _axes_of(operands: Operands, attrs: Attrs, *names: str) -> list[tuple[int, list[int | None]]]:
    """Each axis: its extent, and its items of the attributes of a slice that are known."""
    known = [attrs.get(name) or () for name in names]
    return [
        (extent, [vector[i] if i < len(vector) else None for vector in known])
        for i, extent in enumerate(_first(operands).extents)
    ]


def _within(extent: int, start: int, step: int) -> int:
    """How many elements of an axis there are from ``start`` on."""
    return 1 + ((extent - 1 - start) // step if step > 0 else start // -step if step else 0)


def _starts(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return tuple(
        0 if extent == 0 else c.rng.choice((0, 0, extent - 1, c.rng.randrange(extent)))
        for extent, _ in _axes_of(operands, attrs)
    )


def _sizes(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    """Now and then nothing at all; most often as much as there is in one direction."""
    found = []
    for extent, (start, step) in _axes_of(operands, attrs, "starts", "steps"):
        most = max(1, _within(extent, start or 0, step or c.rng.choice(_STEPS)))
        size = 0 if c.chance(0.05) else most if c.chance(0.5) else c.rng.randint(1, most)
        found.append(size if extent else 0)
    return tuple(found)


def _steps(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    """Steps of both signs that stay within the axis."""
    found = []
    for extent, (start, size) in _axes_of(operands, attrs, "starts", "sizes"):
        fitting = [step for step in _STEPS if _within(extent, start or 0, step) >= (size or 0)]
        found.append(c.rng.choice(fitting or _STEPS))
    return tuple(found)


def _amounts(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return tuple(c.rng.choice((0, 0, 1, 2)) for _ in _first(operands).extents)


def _gaps(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return tuple(c.rng.choice((0, 0, 0, 1)) for _ in _first(operands).extents)


def _iota_shape(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    return c.shape(max(1, c.rank))


def _iota_axis(operands: Operands, attrs: Attrs, c: Context) -> int:
    return c.axis(len(attrs["shape"]))


def _k(operands: Operands, attrs: Attrs, c: Context) -> tuple[int, ...]:
    axis = attrs.get("axis")
    shape = _first(operands).extents
    extent = shape[axis] if axis is not None and axis < len(shape) else min(shape, default=1)
    return (c.rng.randint(0 if c.chance(0.1) else min(1, extent), extent),)


def _batch_dims(operands: Operands, attrs: Attrs, c: Context) -> int:
    x, indices = operands
    assert x is not None and indices is not None
    shared = 0
    for a, b in zip(x.extents[:-1], indices.extents[:-1], strict=False):
        if a != b:
            break
        shared += 1
    return c.rng.randint(0, shared) if c.chance(0.3) else 0


def _dtype(operands: Operands, attrs: Attrs, c: Context) -> str:
    return c.rng.choice((*FLOATS[:3], "int64", "int32", "int8", "uint8", "bool"))


ATTRIBUTES: dict[tuple[str, str], Callable[[Operands, Attrs, Context], Any]] = {
    ("map", "fn"): _fn,
    ("reduce", "fn"): _reduce_fn,
    ("cumulate", "fn"): lambda operands, attrs, c: c.rng.choice(("add", "add", "mul")),
    ("arg_reduce", "fn"): lambda operands, attrs, c: c.rng.choice(("max", "min")),
    ("pool", "fn"): lambda operands, attrs, c: c.rng.choice(("add", "max", "min")),
    ("", "fn"): lambda operands, attrs, c: c.rng.choice(("set", "add", "mul", "max", "min")),
    ("cast", "dtype"): _dtype,
    ("splat", "dtype"): lambda operands, attrs, c: c.dtype,
    ("", "axes"): _axes,
    ("layer_norm", "axes"): _last_axes,
    ("rms_norm", "axes"): _last_axes,
    ("", "axis"): _axis,
    ("concat", "axis"): _concat_axis,
    ("iota", "axis"): _iota_axis,
    ("", "last"): _bool,
    ("", "exclusive"): _bool,
    ("", "reverse"): _bool,
    ("", "largest"): _bool,
    ("conv", "groups"): _groups,
    ("conv_channels_last", "groups"): lambda operands, attrs, c: _groups(operands, attrs, c, last=True),
    ("reshape", "shape"): _new_shape,
    ("expand", "shape"): _wider_shape,
    ("iota", "shape"): _iota_shape,
    ("dim", "value"): lambda operands, attrs, c: c.shape(c.rng.choice((1, 2, 3))),
    ("", "perm"): _perm,
    ("pool", "window"): _window,
    ("slice", "starts"): _starts,
    ("slice", "sizes"): _sizes,
    ("slice", "steps"): _steps,
    ("pad", "low"): _amounts,
    ("pad", "high"): _amounts,
    ("pad", "interior"): _gaps,
    ("", "k"): _k,
    ("", "batch_dims"): _batch_dims,
    ("", "epsilon"): lambda operands, attrs, c: c.rng.choice((1e-5, 1e-6, 1e-3)),
    ("", "scale"): lambda operands, attrs, c: c.rng.choice((0.125, 0.5, 1.0)),
}
for _op, _last in (("conv", False), ("conv_channels_last", True)):
    ATTRIBUTES[_op, "strides"] = _of_conv(_strides, _last)
    ATTRIBUTES[_op, "dilations"] = _of_conv(_dilations, _last)
    ATTRIBUTES[_op, "low"] = ATTRIBUTES[_op, "high"] = _of_conv(_padding, _last)
ATTRIBUTES["pool", "strides"] = _of_pool(_strides)
ATTRIBUTES["pool", "dilations"] = _of_pool(_dilations)
ATTRIBUTES["pool", "low"] = ATTRIBUTES["pool", "high"] = _of_pool(_padding)
