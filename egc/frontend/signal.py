"""Fourier transforms of static length as matrix products and convolutions with constant weights.

A product costs length² where an FFT costs length·log(length); up to ``MAX_WEIGHTS`` weights it still runs at
the speed of a matrix product, beyond that the operator goes to the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from egc.frontend.context import Context, NotCompiled, OnnxNode
from egc.frontend.registry import operator
from egc.ir.types import numpy_dtype

MAX_WEIGHTS = 1 << 22


@operator("DFT", family="signal")
def dft(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """The discrete Fourier transform along an axis; the last axis holds the real and the imaginary part."""
    x = node.required(0)
    rank, parts = ctx.rank(x), ctx.shape(x)[-1]
    if node.version >= 20:
        number = -2 if node.input(2) is None else ctx.scalar_const(node.input(2))
        if number is None:
            raise NotCompiled("the axis is data")
    else:
        number = node.attr("axis", 1)
    axis = ctx.axis(int(number), rank)
    if axis == rank - 1 or parts not in (1, 2):
        ctx.fail(f"the operand is {ctx.type(x)}; its last axis holds one or two parts of each element")
    inverse, onesided = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    extent = ctx.shape(x)[axis]
    if node.input(1) is not None:
        length = ctx.scalar_const(node.input(1))
    elif isinstance(extent, int):
        length = 2 * (extent - 1) if inverse and onesided else extent
    else:
        length = None
    if length is None or not isinstance(extent, int):
        raise NotCompiled("the length is data")
    weights = _inverse_real(int(length)) if inverse and onesided else _weights(int(length), inverse)
    if not inverse and onesided:
        weights = weights[:, :, : int(length) // 2 + 1]
    return [_transform(ctx, x, axis, weights[: int(parts)])]


def _angles(length: int) -> np.ndarray:
    # Reduced modulo the length before the division, which keeps large products exact.
    steps = np.outer(np.arange(length), np.arange(length)) % max(length, 1)
    return 2 * np.pi * steps / max(length, 1)


def _weights(length: int, inverse: bool) -> np.ndarray:
    """The weights [part in, element in, frequency, part out] of a complex transform."""
    if length * length * 4 > MAX_WEIGHTS:
        raise NotCompiled(f"a transform of length {length}")
    cosines, sines = np.cos(_angles(length)), np.sin(_angles(length))
    if inverse:
        return np.stack([np.stack([cosines, sines], -1), np.stack([-sines, cosines], -1)]) / length
    return np.stack([np.stack([cosines, -sines], -1), np.stack([sines, cosines], -1)])


def _inverse_real(length: int) -> np.ndarray:
    """The weights [part in, frequency, element, 1] from half a spectrum back to ``length`` real numbers."""
    full = _weights(length, inverse=True)[..., :1]
    half = full[:, : length // 2 + 1].copy()
    # A frequency that has a mirror image counts for both of them.
    mirrored = slice(1, (length + 1) // 2)
    half[:, mirrored] *= 2
    return half


def _transform(ctx: Context, x: str, axis: int, weights: np.ndarray) -> str:
    """x [..., n, ..., parts] times ``weights`` [parts, n, m, parts out]: n is cut or zero-padded to fit."""
    parts, size, results, parts_out = weights.shape
    rank, extent = ctx.rank(x), ctx.shape(x)[axis]
    assert isinstance(extent, int)
    used = min(extent, size)
    x = ctx.slice_axis(x, axis, 0, used)
    others = [i for i in range(rank - 1) if i != axis]
    moved = ctx.transpose(x, (*others, axis, rank - 1))
    lead = ctx.shape(moved)[:-2]
    flat = ctx.reshape(moved, (*lead, used * parts) if lead else (1, used * parts))
    matrix = weights[:, :used].transpose(1, 0, 2, 3).reshape(used * parts, results * parts_out)
    constant = ctx.constant(np.ascontiguousarray(matrix).astype(numpy_dtype(ctx.dtype(x))))
    out = ctx.reshape(ctx.add("matmul", (flat, constant)), (*lead, results, parts_out))
    order = [*others, axis, rank - 1]
    return ctx.transpose(out, [order.index(i) for i in range(rank)])


@operator("STFT", family="signal")
def stft(ctx: Context, node: OnnxNode) -> Sequence[str]:
    """Transforms of windowed frames of a signal [B, L, parts]: a convolution with window times transform."""
    signal, window = node.required(0), node.input(2)
    step = ctx.scalar_const(node.required(1))
    length = None if node.input(3) is None else ctx.scalar_const(node.input(3))
    if length is None and window is not None:
        length = ctx.shape(window)[0]
    if not isinstance(step, int) or not isinstance(length, int):
        raise NotCompiled("the frames' step or length is data")
    parts = ctx.shape(signal)[-1] if ctx.rank(signal) == 3 else 1
    if not isinstance(parts, int):
        raise NotCompiled("the signal's number of parts is symbolic")
    if ctx.rank(signal) == 2:
        signal = ctx.unsqueeze(signal, (2,))
    weights = _weights(length, inverse=False)[:parts]
    if node.attr("onesided", 1):
        weights = weights[:, :, : length // 2 + 1]
    frequencies = weights.shape[2]
    kernel = weights.transpose(2, 3, 0, 1).reshape(frequencies * 2, parts, length)
    taps = ctx.constant(np.ascontiguousarray(kernel).astype(numpy_dtype(ctx.dtype(signal))))
    if window is not None:
        taps = ctx.map("mul", taps, window)
    frames = ctx.add(
        "conv",
        (ctx.transpose(signal, (0, 2, 1)), taps),
        strides=(step,),
        dilations=(1,),
        low=(0,),
        high=(0,),
        groups=1,
    )
    batch, _, count = ctx.shape(frames)
    return [ctx.transpose(ctx.reshape(frames, (batch, frequencies, 2, count)), (0, 3, 1, 2))]
