"""Transcendental functions as LLVM instructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from egc.codegen.builder import Builder, Value


def fmod(b: Builder, x: Value, y: Value) -> Value:
    """C's fmod: x - trunc(x / y)·y, corrected by one multiple where the quotient was rounded."""
    quotient = b.call("trunc", b.binary("fdiv", x, y))
    negated = b.pure(f"fneg {quotient}", quotient.elem, quotient.lanes, quotient)
    return b.call("copysign", b.call("fma", negated, y, x), x)


MATH_FUNCTIONS: Mapping[str, Callable[..., Value]] = {}
