"""Scalar functions in generated code: accuracy in units of the last place, and the special values."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from egc.codegen.compile import compile_module, compile_nest
from egc.codegen.link import link
from egc.codegen.runtime_ir import support_ir
from egc.codegen.target import Target, native, parse_arch
from egc.ir.dims import symbol
from egc.ir.expr import Load, call
from egc.ir.kernel import Axis, Buffer, Kernel, Stage
from egc.ir.nest import Loop, Nest
from egc.ir.scalar import apply_numpy
from egc.ir.types import TensorType
from tests.support.elf_exec import emulator, run_under_qemu
from tests.support.native_kernel import NativeKernel

I = symbol("i")  # noqa: E741

# Function, intervals that its arguments are drawn from, and the bound on its error in ulp: float32, float64.
ACCURACY = [
    ("exp", [(-104, 89), (-1, 1)], [(-745, 709), (-1, 1)], 1.5, 1.5),
    ("log", [(1e-44, 1e-30), (0.5, 2), (1e-3, 1e38)], [(1e-320, 1e-300), (0.5, 2), (1e-3, 1e300)], 1.5, 1.5),
    ("tanh", [(-10, 10), (-1e-3, 1e-3)], [(-20, 20), (-1e-3, 1e-3)], 5, 2),
    ("erf", [(-4, 4), (-1e-3, 1e-3)], [(-6, 6), (-1e-3, 1e-3)], 4, 2),
    ("sin", [(-4, 4), (-1e6, 1e6)], [(-4, 4), (-1e5, 1e5)], 1, 2),
    ("cos", [(-4, 4), (-1e6, 1e6)], [(-4, 4), (-1e5, 1e5)], 1, 2),
    ("tan", [(-4, 4), (-1e3, 1e3)], [(-4, 4), (-1e3, 1e3)], 1, 4),
    ("asin", [(-1, 1)], [(-1, 1)], 1, 2.5),
    ("acos", [(-1, 1)], [(-1, 1)], 1, 2.5),
    ("atan", [(-3, 3), (-1e6, 1e6)], [(-3, 3), (-1e6, 1e6)], 1, 2),
    ("sinh", [(-3, 3), (-89, 89)], [(-3, 3), (-709, 709)], 1, 4),
    ("cosh", [(-3, 3), (-89, 89)], [(-3, 3), (-709, 709)], 1, 4),
    ("asinh", [(-3, 3), (-1e30, 1e30)], [(-3, 3), (-1e300, 1e300)], 1, 3),
    ("acosh", [(1, 3), (1, 1e30)], [(1, 3), (1, 1e300)], 1, 3),
    ("atanh", [(-1, 1)], [(-1, 1)], 1, 3),
]
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1, -1, 1e-40, -1e-40, 300, -300, 2, -2, 0.5, -0.5, 3]
UNARY = [row[0] for row in ACCURACY] + [
    "floor",
    "ceil",
    "round",
    "sign",
    "abs",
    "neg",
    "sqrt",
    "isnan",
    "isinf",
]
UNARY += ["relu", "sigmoid", "silu", "softplus", "gelu_erf", "gelu_tanh", "hard_swish", "rsqrt", "reciprocal"]


def nest_of(fn: str, *operands: np.ndarray) -> Nest:
    """`fn` over arrays, in vectors of 8 with a remainder where the length is no multiple."""
    size = len(operands[0])
    loads = [Load(f"x{n}", (I,), array.dtype.name) for n, array in enumerate(operands)]
    value = call(fn, *loads)
    inputs = [Buffer(f"x{n}", TensorType(a.dtype.name, (size,)), "in") for n, a in enumerate(operands)]
    out = Buffer("y", TensorType(value.dtype, (size,)), "out")
    stage = Stage("s", (Axis("i", size),), "y", (I,), value, value)
    return Nest(Kernel(f"fn_{fn}", (*inputs, out), (stage,)), ((Loop("i", 8, "par"), Loop("i", 1, "vec")),))


def evaluate(fn: str, *operands: np.ndarray, target: Target | None = None) -> np.ndarray:
    """What the code of this machine, or of another target that it runs, computes."""
    nest = nest_of(fn, *operands)
    return NativeKernel(nest, target or native()).run({f"x{n}": a for n, a in enumerate(operands)})["y"]


def evaluate_on_arm(fn: str, *operands: np.ndarray) -> np.ndarray:
    """The same as code of a generic 64-bit Arm, under qemu."""
    if emulator("aarch64") is None:
        pytest.skip("qemu-user is not installed")
    target, nest = parse_arch("aarch64"), nest_of(fn, *operands)
    compiled = compile_nest(nest, target)
    linked = link([compiled.code], [compile_module(support_ir(target.triple), target)])
    return run_under_qemu(linked, compiled.name, [*operands, np.ones_like(operands[0])], [])[-1]


def anywhere(dtype: str, count: int) -> np.ndarray:
    """Random mantissas and signs at random exponents of the whole range; the last ones are special."""
    rng, info = np.random.default_rng(11), np.finfo(dtype)
    size = np.ldexp(rng.uniform(1, 2, count), rng.integers(info.minexp, info.maxexp, count))
    size = np.minimum(size, float(info.max)) * rng.choice([-1, 1], count)
    special = [1e20, 3e38, -3e38, 2.0**30, 2.0**45, 2.0**46, math.inf, -math.inf, math.nan, 0.0, -0.0]
    # The double and the float next to a multiple of π/2 (Muller, Elementary Functions, table 11.1).
    nearest = [16367173 * 2.0**72, 6381956970095103 * 2.0**797 if dtype == "float64" else 1.0]
    return np.concatenate([size, special, nearest]).astype(dtype)


TARGETS = ["native", "x86-64-v3", "aarch64"]


def evaluate_for(arch: str, fn: str, *operands: np.ndarray) -> np.ndarray:
    """`fn` by the code of an architecture; skipped where this machine has no way to run it."""
    if arch == "aarch64":
        return evaluate_on_arm(fn, *operands)
    if arch != "native" and native().triple != parse_arch(arch).triple:
        pytest.skip("another architecture")
    return evaluate(fn, *operands, target=native() if arch == "native" else parse_arch(arch))


@pytest.mark.parametrize("arch", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fn", ["sin", "cos", "tan"])
def test_angles_of_any_size(fn: str, dtype: str, arch: str) -> None:
    x = anywhere(dtype, 300)
    found = evaluate_for(arch, fn, x)
    assert np.isnan(found[~np.isfinite(x)]).all()
    bound = 1 if dtype == "float32" else 4
    with mpmath.workprec(1300):  # to reduce an argument takes as many bits as it has
        for argument, value in zip(x, found, strict=True):
            if math.isfinite(argument):
                exact = getattr(mpmath, fn)(mpmath.mpf(float(argument)))
                unit = float(np.spacing(np.abs(np.asarray(float(exact), dtype))))
                assert abs(mpmath.mpf(float(value)) - exact) <= bound * unit, (argument, value)


@pytest.mark.parametrize("arch", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_remainders_of_any_quotient_are_exact(dtype: str, arch: str) -> None:
    least, most = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    x = anywhere(dtype, 400)
    y = np.random.default_rng(5).permutation(x)
    x = np.concatenate([x, x[:100], [most] * 4, [least * 9]]).astype(dtype)
    y = np.concatenate([y, [0.7] * 50, [least * 3] * 50, [least, least * 5, 0.7, most], [least * 2]])
    y = y.astype(dtype)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(evaluate_for(arch, "fmod", x, y), np.fmod(x, y))


def test_a_modulus_has_its_divisors_sign_where_products_underflow() -> None:
    x, y = np.float32([-1e-30, 1e-30, 0, -3e-30]), np.float32([3e-30, -3e-30, -1, 3e-30])
    np.testing.assert_array_equal(evaluate("mod", x, y), np.mod(x, y))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_number_below_1_has_an_inverse_hyperbolic_cosine(dtype: str) -> None:
    x = np.asarray([-np.finfo(dtype).max, -3e38, -1e10, -1, 0, 0.5, -math.inf, math.nan], dtype)
    assert np.isnan(evaluate("acosh", x)).all()


def error_in_ulp(fn: str, x: np.ndarray, found: np.ndarray) -> float:
    """The greatest error over `x`, against 120 bits of precision."""
    with mpmath.workprec(120):
        exact = [getattr(mpmath, fn)(mpmath.mpf(float(v))) for v in x]
        unit = [float(np.spacing(np.abs(np.asarray(float(v), x.dtype)))) for v in exact]
        return max(
            float(abs(mpmath.mpf(float(f)) - e) / u)
            for f, e, u in zip(found, exact, unit, strict=True)
            if math.isfinite(u)
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("row", ACCURACY, ids=lambda row: row[0])
def test_accuracy(row: tuple, dtype: str) -> None:
    fn, single, double, bound32, bound64 = row
    rng = np.random.default_rng(7)
    intervals = single if dtype == "float32" else double
    x = np.concatenate([rng.uniform(low, high, 300) for low, high in intervals]).astype(dtype)
    assert error_in_ulp(fn, x, evaluate(fn, x)) <= (bound32 if dtype == "float32" else bound64)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fn", UNARY)
def test_special_values(fn: str, dtype: str) -> None:
    x = np.asarray(SPECIAL, dtype)
    found, expected = evaluate(fn, x), apply_numpy(fn, (x,))
    np.testing.assert_allclose(found, expected, rtol=2e-6 if dtype == "float32" else 1e-13)
    if found.dtype.kind == "f" and fn not in ("relu", "gelu_erf", "gelu_tanh", "hard_swish", "silu"):
        real = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(found)[real], np.signbit(expected)[real])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fn", ["pow", "atan2", "fmod", "mod", "min", "max", "div", "add", "sub", "mul"])
def test_special_pairs(fn: str, dtype: str) -> None:
    values = np.asarray([v for v in SPECIAL if abs(v) != 1e-40], dtype)
    rng = np.random.default_rng(3)
    x, y = (v.ravel() for v in np.meshgrid(values, values))
    x = np.concatenate([x, rng.uniform(-5, 5, 100).astype(dtype), np.arange(-8, 8).astype(dtype)])
    y = np.concatenate([y, rng.uniform(-5, 5, 100).astype(dtype), np.tile(np.arange(-2, 2), 4).astype(dtype)])
    found, expected = evaluate(fn, x, y), apply_numpy(fn, (x, y))
    np.testing.assert_allclose(found, expected, rtol=2e-6 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint64"])
@pytest.mark.parametrize(
    "fn", ["div", "mod", "fmod", "min", "max", "shift_left", "shift_right", "bit_xor", "lt"]
)
def test_integer_pairs(fn: str, dtype: str) -> None:
    info = np.iinfo(dtype)
    values = [info.min, info.max, 0, 1, 2, 3, 7, 100] + ([-1, -2, -7] if info.min else [])
    if fn.startswith("shift"):
        values = [v for v in values if 0 <= v < 2**31]
    x, y = (
        np.asarray(v, dtype).ravel()
        for v in np.meshgrid(np.asarray(values, dtype), np.asarray(values, dtype))
    )
    overflow = (x == info.min) & (y.astype(object) == -1)
    found, expected = evaluate(fn, x, y), apply_numpy(fn, (x, y))
    np.testing.assert_array_equal(found[~overflow], expected[~overflow])
