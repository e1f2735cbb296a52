"""Scalar functions and casts as LLVM instructions, on scalars and vectors alike.

In registers a float16 or bfloat16 is a float (it is rounded when it is stored or cast), a bool is an i1. In
memory a bool is one byte, 0 or 1.
"""

from __future__ import annotations

import math

import numpy as np

from egc.codegen.builder import Builder, Value
from egc.codegen.math_functions import MATH_FUNCTIONS, fmod
from egc.errors import CompileError
from egc.ir.types import SIGNED, UNSIGNED, itemsize, numpy_dtype

_REGISTER = {"float32": "float", "float64": "double", "float16": "float", "bfloat16": "float", "bool": "i1"}
_MEMORY = {"float32": "float", "float64": "double", "float16": "half", "bfloat16": "i16", "bool": "i8"}
_ARITHMETIC = {
    "add": ("fadd contract", "add"),
    "sub": ("fsub contract", "sub"),
    "mul": ("fmul contract", "mul"),
}
_COMPARE = {"eq": "eq", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}
_BITS = {"and": "and", "or": "or", "xor": "xor", "bit_and": "and", "bit_or": "or", "bit_xor": "xor"}


def register_type(dtype: str) -> str:
    """The LLVM type of `dtype` in registers; CompileError for a dtype that has none."""
    if dtype in SIGNED or dtype in UNSIGNED:
        return f"i{8 * itemsize(dtype)}"
    if dtype not in _REGISTER:
        raise CompileError(
            f"{dtype} values cannot be compiled", why="only plain floats, integers and bools can"
        )
    return _REGISTER[dtype]


def memory_type(dtype: str) -> str:
    """The LLVM type of `dtype` in memory."""
    return _MEMORY.get(dtype) or register_type(dtype)


def is_floating(dtype: str) -> bool:
    """Whether `dtype` is computed in float or double registers."""
    return _REGISTER.get(dtype) in ("float", "double")


class Scalars:
    """Emits scalar functions into a builder."""

    def __init__(self, builder: Builder) -> None:
        self.b = builder

    def const(self, value: int | float | bool, dtype: str) -> Value:
        """A literal of `dtype`, rounded to it."""
        if is_floating(dtype):
            with np.errstate(all="ignore"):
                value = float(np.asarray(value).astype(numpy_dtype(dtype)))
        elif dtype != "bool" and isinstance(value, float):
            value = int(value) if math.isfinite(value) else 0
        return self.b.const(value, register_type(dtype))

    def memory_const(self, value: int | float | bool, dtype: str) -> Value:
        """A literal of `dtype` as it lies in memory."""
        if dtype in ("float16", "bfloat16"):
            with np.errstate(all="ignore"):
                bits = np.asarray(value).astype(numpy_dtype(dtype)).view(np.uint16).item()
            return Value(f"0xH{bits:04X}", "half") if dtype == "float16" else self.b.const(bits, "i16")
        return self.b.const(bool(value), "i8") if dtype == "bool" else self.const(value, dtype)

    # Memory and registers.

    def from_memory(self, value: Value, dtype: str) -> Value:
        """A loaded value as it is computed with."""
        b = self.b
        if dtype == "float16":
            return b.convert("fpext", value, "float")
        if dtype == "bfloat16":
            wide = b.binary("shl", b.convert("zext", value, "i32"), b.const(16, "i32"))
            return b.convert("bitcast", wide, "float")
        if dtype == "bool":
            return b.compare("icmp ne", value, b.const(0, "i8"))
        return value

    def to_memory(self, value: Value, dtype: str) -> Value:
        """A computed value as it is stored: rounded to nearest even where memory is narrower."""
        b = self.b
        if dtype == "float16":
            return b.convert("fptrunc", value, "half")
        if dtype == "bfloat16":
            bits = b.convert("bitcast", value, "i32")
            odd = b.binary("and", b.binary("lshr", bits, b.const(16, "i32")), b.const(1, "i32"))
            rounded = b.binary("add", bits, b.binary("add", odd, b.const(0x7FFF, "i32")))
            high = b.binary("lshr", rounded, b.const(16, "i32"))
            is_nan = b.compare("fcmp uno", value, value)
            return b.convert("trunc", b.select(is_nan, b.const(0x7FC0, "i32"), high), "i16")
        if dtype == "bool":
            return b.convert("zext", value, "i8")
        return value

    # Casts.

    def cast(self, value: Value, source: str, to: str) -> Value:
        """`value` of dtype `source` as dtype `to`: floats truncate towards zero, anything but 0 is True."""
        b = self.b
        if source == to:
            return value
        if to == "bool":
            zero = b.const(0, value.elem)
            return b.compare("fcmp une" if is_floating(source) else "icmp ne", value, zero)
        if is_floating(to):
            return self._to_float(value, source, to)
        elem = register_type(to)
        if is_floating(source):
            # As processors do: to 32 or 64 bits, then the low bits. Out of range the result is unspecified.
            unsigned = to == "uint64"
            wide = "i64" if elem == "i64" or to == "uint32" else "i32"
            out = b.convert("fptoui" if unsigned else "fptosi", value, wide)
            return b.convert("trunc", out, elem) if wide != elem else out
        if source == "bool":
            return b.convert("zext", value, elem)
        if int(elem[1:]) <= int(value.elem[1:]):
            return b.convert("trunc", value, elem)
        return b.convert("sext" if source in SIGNED else "zext", value, elem)

    def _to_float(self, value: Value, source: str, to: str) -> Value:
        b = self.b
        elem = register_type(to)
        if not is_floating(source):
            value = b.convert("sitofp" if source in SIGNED else "uitofp", value, elem)
        elif value.elem != elem:
            value = b.convert("fpext" if elem == "double" else "fptrunc", value, elem)
        if to in ("float16", "bfloat16"):
            return self.from_memory(self.to_memory(value, to), to)
        return value

    # Functions.

    def combine(self, fn: str, acc: Value, value: Value, dtype: str) -> Value:
        """The combining function of a reduction. `value` comes first: what max and min do for a NaN then
        depends on `value` alone, which keeps the chain through `acc` short.
        """
        return self.apply(fn, [value, acc], (dtype, dtype))

    def apply(self, fn: str, args: list[Value], dtypes: tuple[str, ...]) -> Value:
        """A primitive scalar function applied to values of `dtypes`."""
        b = self.b
        dtype = dtypes[-1]
        floating = is_floating(dtype)
        if fn in _ARITHMETIC and dtype != "bool":
            return b.binary(_ARITHMETIC[fn][0 if floating else 1], *args)
        if fn in ("add", "mul", "max", "min") and dtype == "bool":
            return b.binary("or" if fn in ("add", "max") else "and", *args)
        if fn in _COMPARE or fn == "ne":
            return self._compare(fn, args, dtype)
        if fn in _BITS:
            return b.binary(_BITS[fn], *args)
        if fn == "select":
            return b.select(*args)
        if fn in ("min", "max"):
            return self._extreme(fn, args[0], args[1], dtype)
        if fn in ("not", "bit_not"):
            return b.binary("xor", args[0], b.const(-1 if args[0].elem != "i1" else 1, args[0].elem))
        if fn in ("shift_left", "shift_right"):
            return self._shift(fn, args[0], args[1], dtypes[0])
        if fn == "pow":
            return self._pow(args, dtypes)
        if floating:
            return self._float_function(fn, args)
        return self._integer_function(fn, args, dtype)

    def _compare(self, fn: str, args: list[Value], dtype: str) -> Value:
        if is_floating(dtype):
            return self.b.compare("fcmp une" if fn == "ne" else f"fcmp o{_COMPARE[fn]}", *args)
        sign = "" if fn in ("eq", "ne") else ("s" if dtype in SIGNED else "u")
        return self.b.compare(f"icmp {sign}{_COMPARE.get(fn, 'ne')}", *args)

    def _extreme(self, fn: str, x: Value, y: Value, dtype: str) -> Value:
        b = self.b
        if not is_floating(dtype):
            return b.call(("s" if dtype in SIGNED else "u") + fn, x, y)
        predicate = "fcmp ogt" if fn == "max" else "fcmp olt"
        if x.is_literal:
            x, y = y, x
        if y.is_literal and y.ref != b.const(math.nan, y.elem).ref:
            # One x86 instruction: it yields its second operand where either is NaN.
            return b.select(b.compare(predicate, y, x), y, x)
        larger = b.select(b.compare(predicate, x, y), x, y)
        return b.select(b.compare("fcmp uno", x, x), x, larger)

    def _shift(self, fn: str, x: Value, by: Value, dtype: str) -> Value:
        b = self.b
        bits = b.const(int(x.elem[1:]), x.elem)
        inside = b.compare("icmp ult", by, bits)
        zero = b.const(0, x.elem)
        if fn == "shift_right" and dtype in SIGNED:
            # All bits are copies of the sign bit when no other is left.
            return b.binary("ashr", x, b.select(inside, by, b.const(int(x.elem[1:]) - 1, x.elem)))
        op = "shl" if fn == "shift_left" else "lshr"
        return b.select(inside, b.binary(op, x, b.select(inside, by, zero)), zero)

    def _pow(self, args: list[Value], dtypes: tuple[str, ...]) -> Value:
        base, exponent = dtypes
        wide = "float32" if is_floating(base) and base != "float64" and exponent != "float64" else "float64"
        x, y = self.cast(args[0], base, wide), self.cast(args[1], exponent, wide)
        power = MATH_FUNCTIONS["pow"](self.b, x, y)
        # A whole power that is not exact in double must not be cut to the integer below.
        return self.cast(power if is_floating(base) else self.b.call("roundeven", power), wide, base)

    def _float_function(self, fn: str, args: list[Value]) -> Value:
        b, x = self.b, args[0]
        zero = b.const(0.0, x.elem)
        match fn:
            case "neg":
                return b.pure(f"fneg {x}", x.elem, x.lanes, x)
            case "abs":
                return b.call("fabs", x)
            case "sqrt" | "floor" | "ceil":
                return b.call(fn, x)
            case "round":
                return b.call("roundeven", x)
            case "isnan":
                return b.compare("fcmp uno", x, x)
            case "isinf":
                return b.compare("fcmp oeq", b.call("fabs", x), b.const(math.inf, x.elem))
            case "sign":
                one = b.call("copysign", b.splat(b.const(1.0, x.elem), x.lanes), x)
                is_sign = b.compare("fcmp one", x, zero)
                return b.select(is_sign, one, b.select(b.compare("fcmp uno", x, x), x, zero))
            case "div":
                return b.binary("fdiv", *args)
            case "fmod":
                return fmod(b, x, args[1])
            case "mod":
                remainder = fmod(b, x, args[1])
                signs = [b.compare("fcmp olt", value, zero) for value in (remainder, args[1])]
                some = b.compare("fcmp one", remainder, zero)
                differs = b.binary("and", some, b.binary("xor", *signs))
                return b.select(differs, b.binary("fadd", remainder, args[1]), remainder)
        return MATH_FUNCTIONS[fn](b, *args)

    def _integer_function(self, fn: str, args: list[Value], dtype: str) -> Value:
        b, x = self.b, args[0]
        zero, one = b.const(0, x.elem), b.const(1, x.elem)
        signed = dtype in SIGNED
        match fn:
            case "neg":
                return b.binary("sub", zero, x)
            case "abs":
                return b.call("abs", x, extra="i1 false") if signed else x
            case "sign":
                positive = b.convert("zext", b.compare("icmp ne", x, zero), x.elem)
                return (
                    b.select(b.compare("icmp slt", x, zero), b.const(-1, x.elem), positive)
                    if signed
                    else positive
                )
            case "floor" | "ceil" | "round":
                return x
            case "isnan" | "isinf":
                return b.const(False, "i1", x.lanes)
            case "div" | "mod" | "fmod":
                return self._integer_division(fn, x, args[1], signed, zero, one)
        # Transcendental functions of integers: through double, as numpy does.
        wide = [self.cast(arg, dtype, "float64") for arg in args]
        return self.cast(self._float_function(fn, wide), "float64", dtype)

    def _integer_division(self, fn: str, x: Value, y: Value, signed: bool, zero: Value, one: Value) -> Value:
        """Truncating division and both remainders; 0 where y is 0. x86 traps on y = 0 and on MIN / -1:
        avoided.
        """
        b = self.b
        is_zero = b.compare("icmp eq", y, zero)
        if not signed:
            quotient = b.binary("udiv" if fn == "div" else "urem", x, b.select(is_zero, one, y))
            return b.select(is_zero, zero, quotient)
        minus = b.compare("icmp eq", y, b.const(-1, y.elem))
        safe = b.select(b.binary("or", is_zero, minus), one, y)
        if fn == "div":
            quotient = b.select(minus, b.binary("sub", zero, x), b.binary("sdiv", x, safe))
            return b.select(is_zero, zero, quotient)
        remainder = b.binary("srem", x, safe)
        if fn == "mod":
            differs = b.compare("icmp slt", b.binary("xor", remainder, y), zero)
            moved = b.binary("and", differs, b.compare("icmp ne", remainder, zero))
            remainder = b.select(moved, b.binary("add", remainder, y), remainder)
        return b.select(b.binary("or", is_zero, minus), zero, remainder)
