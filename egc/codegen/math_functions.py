"""Transcendental functions as LLVM instructions, on scalars and vectors alike. Branches are taken only for
remainders with long quotients and for sines of huge arguments.

exp, log, tanh and erf have float32 forms, within about 2 units in the last place; the rarer functions
compute float32 through double. Double results are within a few units of the last place; pow loses up to
|y·log x| units. Reductions and identities are the textbook ones (Muller, Elementary Functions, 3rd ed.,
chapters 3 and 11); the polynomials are in math_coefficients.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from egc.codegen import math_coefficients as table
from egc.codegen.builder import Builder, Value, float_literal, mangle

# log 2 and π/2 in parts: the high part has so few bits that small multiples of it are exact.
_LOG2_HIGH, _LOG2_LOW = 0.693359375, -2.12194440054690583e-4  # Cody & Waite 1980, section 6
_LOG2_HIGH_64, _LOG2_LOW_64 = float.fromhex("0x1.62e42fefa38p-1"), float.fromhex("0x1.ef35793c7673p-45")
_HALF_PI = (math.pi / 2, 6.123233995736766e-17, -1.4973849048591833e-33)
# Long division: bits of a quotient, and divisions enough for the exponents of float32 and of double.
_FMOD_BITS, _FMOD_STEPS_32, _FMOD_STEPS_64 = 50, 7, 43
_PIECES_32 = 10  # pieces of 2/π: as many as the exponents of float32 need
# Beyond it Cody and Waite's reduction loses bits.
_FAR_32, _FAR_64 = 2.0**45, 2.0**30


class _Writer:
    """Arithmetic on values of one type, without contraction: the algorithms below count on each rounding."""

    def __init__(self, b: Builder, like: Value) -> None:
        self.b = b
        self.elem = like.elem
        self.wide = like.elem == "double"
        self.bits = "i64" if self.wide else "i32"
        self.mantissa = 52 if self.wide else 23
        self.bias = 1023 if self.wide else 127

    def c(self, value: float) -> Value:
        return self.b.const(value, self.elem)

    def i(self, value: int) -> Value:
        return self.b.const(value, self.bits)

    def add(self, x: Value, y: Value) -> Value:
        return self.b.binary("fadd", x, y)

    def sub(self, x: Value, y: Value) -> Value:
        return self.b.binary("fsub", x, y)

    def mul(self, x: Value, y: Value) -> Value:
        return self.b.binary("fmul", x, y)

    def div(self, x: Value, y: Value) -> Value:
        return self.b.binary("fdiv", x, y)

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        x, y, z = self.b.align_lanes(x, y, z)
        return self.b.call("fma", x, y, z)

    def neg(self, x: Value) -> Value:
        return self.b.pure(f"fneg {x}", x.elem, x.lanes, x)

    def abs(self, x: Value) -> Value:
        return self.b.call("fabs", x)

    def sqrt(self, x: Value) -> Value:
        return self.b.call("sqrt", x)

    def exact_sum(self, x: Value, y: Value) -> tuple[Value, Value]:
        """x + y rounded, and what rounding lost (Knuth, TAOCP volume 2, 4.2.2, theorem B)."""
        total = self.add(x, y)
        second = self.sub(total, x)
        first = self.sub(total, second)
        return total, self.add(self.sub(x, first), self.sub(y, second))

    def with_sign(self, x: Value, sign: Value) -> Value:
        return self.b.call("copysign", x, sign)

    def less(self, x: Value, y: Value) -> Value:
        return self.b.compare("fcmp olt", x, y)

    def select(self, condition: Value, x: Value, y: Value) -> Value:
        return self.b.select(condition, x, y)

    def clamp(self, x: Value, low: float, high: float) -> Value:
        """`x` held between two constants; NaN stays NaN."""
        below = self.select(self.b.compare("fcmp ogt", self.c(low), x), self.c(low), x)
        return self.select(self.less(self.c(high), below), self.c(high), below)

    def poly(self, x: Value, coefficients: Sequence[float]) -> Value:
        """The polynomial by Horner's rule, constant first."""
        total = self.b.splat(self.c(coefficients[-1]), x.lanes)
        for coefficient in reversed(coefficients[:-1]):
            total = self.fma(total, x, self.c(coefficient))
        return total

    def odd(self, x: Value, coefficients: Sequence[float]) -> Value:
        """x + x³·P(x²)."""
        square = self.mul(x, x)
        return self.fma(self.mul(square, x), self.poly(square, coefficients), x)

    def as_bits(self, x: Value) -> Value:
        return self.b.convert("bitcast", x, self.bits)

    def as_float(self, x: Value) -> Value:
        return self.b.convert("bitcast", x, self.elem)

    def integer(self, op: str, x: Value, y: Value) -> Value:
        return self.b.binary(op, x, y)


def fmod(b: Builder, x: Value, y: Value) -> Value:
    """C's fmod, exact. Only where a lane's quotient has more than 50 bits is it divided step by step."""
    if x.elem == "float" or y.elem == "float":
        wide = _fmod(b, b.convert("fpext", x, "double"), b.convert("fpext", y, "double"), _FMOD_STEPS_32)
        return b.convert("fptrunc", wide, "float")
    return _fmod(b, x, y, _FMOD_STEPS_64)


def _fmod(b: Builder, x: Value, y: Value, steps: int) -> Value:
    """fmod of doubles; ``steps`` divisions are enough for any quotient."""
    x, y = b.align_lanes(x, y)
    w = _Writer(b, x)
    size, divisor = w.abs(x), w.abs(y)
    finite = w.less(size, w.c(math.inf))
    long = b.compare("fcmp oge", w.div(size, divisor), w.c(2.0**_FMOD_BITS))
    long = b.binary("and", long, b.binary("and", finite, w.less(w.c(0.0), divisor)))
    rest = _remainder(w, size, divisor)

    def stepwise() -> list[Value]:
        return [w.select(long, _long_remainder(w, size, divisor, steps), rest)]

    (rest,) = b.branch(_any(b, long), stepwise, lambda: [rest])
    infinite = b.compare("fcmp oeq", divisor, w.c(math.inf))
    return w.with_sign(w.select(b.binary("and", infinite, finite), size, rest), x)


def _remainder(w: _Writer, size: Value, divisor: Value) -> Value:
    """The remainder of positive numbers with a quotient of no more than 52 bits: fma makes it exact."""
    quotient = w.b.call("trunc", w.div(size, divisor))
    rest = w.fma(w.neg(quotient), divisor, size)
    # The quotient may have been rounded up to the next integer.
    rest = w.select(w.less(rest, w.c(0.0)), w.add(rest, divisor), rest)
    return w.select(w.b.compare("fcmp oge", rest, divisor), w.sub(rest, divisor), rest)


def _long_remainder(w: _Writer, size: Value, divisor: Value, steps: int) -> Value:
    """The remainder of positive finite doubles: long division by multiples of the divisor, as large as leave
    quotients of 50 bits. A subnormal divisor is first taken 2⁶⁰ times, then the rest as well.
    """
    b = w.b
    subnormal = w.less(divisor, w.c(2.0**-1022))
    normal = w.select(subnormal, w.mul(divisor, w.c(2.0**60)), divisor)
    mantissa = w.integer("and", w.as_bits(normal), w.i((1 << 52) - 1))
    exponent = w.integer("lshr", w.as_bits(normal), w.i(52))

    def step(_: Value, carried: list[Value]) -> list[Value]:
        (rest,) = carried
        wanted = w.integer("sub", w.integer("lshr", w.as_bits(rest), w.i(52)), w.i(_FMOD_BITS))
        larger = w.integer("or", mantissa, w.integer("shl", wanted, w.i(52)))
        far = b.compare("icmp sgt", wanted, exponent)
        return [_remainder(w, rest, w.select(far, w.as_float(larger), normal))]

    (rest,) = b.loop(b.i64(0), b.i64(steps), [size], step, at_least_once=True)
    rest = w.select(subnormal, w.mul(rest, w.c(2.0**60)), rest)
    (rest,) = b.loop(b.i64(0), b.i64(2), [rest], step, at_least_once=True)
    return w.select(subnormal, w.mul(rest, w.c(2.0**-60)), rest)


def _any(b: Builder, condition: Value) -> Value:
    """Whether a condition holds in any lane."""
    if condition.lanes == 1:
        return condition
    name = f"llvm.vector.reduce.or.{mangle('i1', condition.lanes)}"
    b.declare(name, "i1", condition.type)
    return b.pure(f"call i1 @{name}({condition})", "i1", 1, condition)


def exp(b: Builder, x: Value) -> Value:
    """eˣ = 2ⁿ·eʳ, n the integer nearest to x / log 2. The power is applied in two halves: 2ⁿ alone may be
    out of range.
    """
    w = _Writer(b, x)
    limits = (-746.0, 710.0) if w.wide else (-104.0, 89.0)
    held = w.clamp(x, *limits)
    magic = 1.5 * 2.0**w.mantissa  # adding it leaves the rounded integer in the low bits
    shifted = w.fma(held, w.c(1 / math.log(2)), w.c(magic))
    n = w.neg(w.sub(shifted, w.c(magic)))
    high, low = (_LOG2_HIGH_64, _LOG2_LOW_64) if w.wide else (_LOG2_HIGH, _LOG2_LOW)
    r = w.fma(n, w.c(low), w.fma(n, w.c(high), held))
    tail = w.poly(r, table.EXP_64 if w.wide else table.EXP_32)
    power = w.add(w.fma(w.mul(r, r), tail, r), w.c(1.0))
    number = w.integer("sub", w.as_bits(shifted), w.as_bits(w.c(magic)))
    half = w.integer("ashr", number, w.i(1))
    for part in (half, w.integer("sub", number, half)):
        biased = w.integer("add", part, w.i(w.bias))
        power = w.mul(power, w.as_float(w.integer("shl", biased, w.i(w.mantissa))))
    return power


def log(b: Builder, x: Value) -> Value:
    """log x = e·log 2 + log m, √½ <= m < √2; subnormal numbers are scaled up first."""
    w = _Writer(b, x)
    least = 2.0 ** (1 - w.bias)
    small = w.less(x, w.c(least))
    scaled = w.select(small, w.mul(x, w.c(2.0**w.mantissa)), x)
    root = w.as_bits(w.c(math.sqrt(0.5)))
    offset = w.integer("sub", w.as_bits(scaled), root)
    exponent = w.integer("ashr", offset, w.i(w.mantissa))
    kept = w.integer("and", offset, w.i((1 << w.mantissa) - 1))
    f = w.sub(w.as_float(w.integer("add", kept, root)), w.c(1.0))
    e = b.convert("sitofp", exponent, w.elem)
    e = w.sub(e, w.select(small, w.c(float(w.mantissa)), w.c(0.0)))
    out = _log_of_fraction(w, f, e)
    out = w.select(b.compare("fcmp oeq", x, w.c(math.inf)), x, out)
    out = w.select(b.compare("fcmp oeq", x, w.c(0.0)), w.c(-math.inf), out)
    return w.select(b.compare("fcmp ult", x, w.c(0.0)), w.c(math.nan), out)


def _log_of_fraction(w: _Writer, f: Value, e: Value) -> Value:
    """e·log 2 + log(1 + f)."""
    half_square = w.mul(w.mul(f, f), w.c(0.5))
    if not w.wide:
        tail = w.mul(w.mul(w.mul(f, f), f), w.poly(f, table.LOG_32))
        low = w.fma(e, w.c(_LOG2_LOW), w.sub(tail, half_square))
        return w.fma(e, w.c(_LOG2_HIGH), w.add(low, f))
    # log(1 + f) = f - (f²/2 - s·(f²/2 + R)), R = log(1+f)/s - 2: the large parts stay exact (fdlibm's form).
    s = w.div(f, w.add(f, w.c(2.0)))
    square = w.mul(s, s)
    rest = w.mul(square, w.poly(square, table.LOG_64))
    inner = w.fma(s, w.add(half_square, rest), w.mul(e, w.c(_LOG2_LOW_64)))
    return w.fma(e, w.c(_LOG2_HIGH_64), w.add(f, w.sub(inner, half_square)))


def log1p(b: Builder, x: Value) -> Value:
    """log(1 + x) for x >= 0 or small |x|: log u, corrected by what rounding u = 1 + x lost."""
    w = _Writer(b, x)
    u = w.add(x, w.c(1.0))
    lost = w.sub(x, w.sub(u, w.c(1.0)))
    out = w.add(log(b, u), w.div(lost, u))
    out = w.select(b.compare("fcmp oeq", u, w.c(math.inf)), u, out)
    return w.select(b.compare("fcmp oeq", x, w.c(0.0)), x, out)


def tanh(b: Builder, x: Value) -> Value:
    """tanh: rational in float32; in double near 0 a polynomial, else 1 - 2 / (e²ˣ + 1)."""
    w = _Writer(b, x)
    if not w.wide:
        held = w.clamp(x, -9.0, 9.0)
        return w.clamp(_rational(w, held, table.TANH_32_ABOVE, table.TANH_32_BELOW), -1.0, 1.0)
    size = w.abs(x)
    grown = exp(b, w.add(size, size))
    far = w.sub(w.c(1.0), w.div(w.c(2.0), w.add(grown, w.c(1.0))))
    near = w.less(size, w.c(0.5))
    return w.with_sign(w.select(near, w.odd(x, table.TANH_64), far), x)


def erf(b: Builder, x: Value) -> Value:
    """erf: rational in float32; in double a polynomial up to 1, beyond that 1 - erfc."""
    w = _Writer(b, x)
    if not w.wide:
        held = w.clamp(x, -3.93, 3.93)
        return w.clamp(_rational(w, held, table.ERF_32_ABOVE, table.ERF_32_BELOW), -1.0, 1.0)
    size = w.clamp(w.abs(x), 0.0, 6.0)
    near = w.mul(x, w.poly(w.mul(x, x), table.ERF_64))
    t = w.div(w.c(2.0), w.add(size, w.c(2.0)))
    tail = w.mul(exp(b, w.neg(w.mul(size, size))), w.poly(t, table.ERFC_64))
    return w.select(w.less(size, w.c(1.0)), near, w.with_sign(w.sub(w.c(1.0), tail), x))


def _rational(w: _Writer, x: Value, above: Sequence[float], below: Sequence[float]) -> Value:
    square = w.mul(x, x)
    return w.div(w.mul(x, w.poly(square, above)), w.poly(square, below))


def _through_double(function: Callable[..., Value]) -> Callable[..., Value]:
    """`function`, which computes in double, for floats as well."""

    def wrapped(b: Builder, *args: Value) -> Value:
        if args[0].elem == "double":
            return function(b, *args)
        wide = [b.convert("fpext", arg, "double") for arg in args]
        return b.convert("fptrunc", function(b, *wide), "float")

    return wrapped


def _reduced(b: Builder, x: Value, narrow: bool) -> tuple[Value, Value]:
    """(n, r) with x = n·π/2 + r, |r| <= π/4 or little more, n right but for multiples of 4: Cody and Waite's
    reduction in three parts, or where a lane's argument is far, Payne and Hanek's. ``narrow``: x has 24 bits.
    """
    w = _Writer(b, x)
    n = b.call("roundeven", w.mul(x, w.c(2 / math.pi)))
    r = x
    for part in _HALF_PI:
        r = w.fma(w.neg(n), w.c(part), r)
    far = w.less(w.c(_FAR_32 if narrow else _FAR_64), w.abs(x))

    def reduce_far() -> list[Value]:
        return [w.select(far, a, z) for a, z in zip(_reduced_far(w, x, narrow), (n, r), strict=True)]

    n, r = b.branch(_any(b, far), reduce_far, lambda: [n, r])
    return n, r


def _reduced_far(w: _Writer, x: Value, narrow: bool) -> tuple[Value, Value]:
    """The same for |x| of 1 or more (Payne and Hanek 1983): x·2/π, a piece of 2/π at a time. Products of a
    piece and half of x are exact, multiples of 4 are dropped from each, and what is left of the sum after its
    nearest integer is kept in two doubles.
    """
    b = w.b
    scaled = w.mul(x, w.c(2.0**-512))
    high = scaled if narrow else w.as_float(w.integer("and", w.as_bits(scaled), w.i(-1 << 27)))
    halves = (scaled,) if narrow else (high, w.sub(scaled, high))
    pieces = table.TWO_OVER_PI[:_PIECES_32] if narrow else table.TWO_OVER_PI
    listed = ", ".join(f"double {float_literal(piece, 'double')}" for piece in pieces)
    zero = b.splat(w.c(0.0), x.lanes)

    def step(place: Value, carried: list[Value]) -> list[Value]:
        n, large, small = carried
        piece = b.pure(
            f"extractelement <{len(pieces)} x double> <{listed}>, i64 {place.ref}", "double", 1, place
        )
        for half in halves:
            product = w.mul(half, piece)
            product = w.fma(b.call("roundeven", w.mul(product, w.c(0.25))), w.c(-4.0), product)
            large, lost = w.exact_sum(large, product)
            whole = b.call("roundeven", large)
            n = w.add(n, whole)
            large, small = w.exact_sum(w.sub(large, whole), w.add(small, lost))
        return [n, large, small]

    n, large, small = b.loop(b.i64(0), b.i64(len(pieces)), [zero, zero, zero], step, at_least_once=True)
    r = w.mul(large, w.c(_HALF_PI[0]))
    lost = w.fma(large, w.c(_HALF_PI[0]), w.neg(r))
    rest = w.fma(large, w.c(_HALF_PI[1]), w.fma(small, w.c(_HALF_PI[0]), lost))
    return n, w.add(r, rest)


def _sine(b: Builder, n: Value, r: Value, shift: int) -> Value:
    """sin(r + (n + shift)·π/2)."""
    w = _Writer(b, r)
    square = w.mul(r, r)
    sine = w.odd(r, table.SIN_64)
    half = w.mul(square, w.c(0.5))
    cosine = w.fma(w.mul(square, square), w.poly(square, table.COS_64), w.sub(w.c(1.0), half))
    # n mod 4 without leaving the floats: n may not fit an integer.
    quadrant = w.add(n, w.c(float(shift)))
    turns = b.call("floor", w.mul(quadrant, w.c(0.25)))
    quadrant = w.fma(turns, w.c(-4.0), quadrant)
    swap = b.binary(
        "or", b.compare("fcmp oeq", quadrant, w.c(1.0)), b.compare("fcmp oeq", quadrant, w.c(3.0))
    )
    out = w.select(swap, cosine, sine)
    out = w.select(b.compare("fcmp oge", quadrant, w.c(2.0)), w.neg(out), out)
    return w.clamp(out, -1.0, 1.0)


def _sin(b: Builder, x: Value, narrow: bool) -> Value:
    w = _Writer(b, x)
    return w.select(b.compare("fcmp oeq", x, w.c(0.0)), x, _sine(b, *_reduced(b, x, narrow), 0))


def _cos(b: Builder, x: Value, narrow: bool) -> Value:
    return _sine(b, *_reduced(b, x, narrow), 1)


def _tan(b: Builder, x: Value, narrow: bool) -> Value:
    w = _Writer(b, x)
    n, r = _reduced(b, x, narrow)
    ratio = w.div(_sine(b, n, r, 0), _sine(b, n, r, 1))
    return w.select(b.compare("fcmp oeq", x, w.c(0.0)), x, ratio)


def _of_an_angle(function: Callable[[Builder, Value, bool], Value]) -> Callable[..., Value]:
    """`function` of doubles, told whether they have been floats."""

    def wrapped(b: Builder, x: Value) -> Value:
        if x.elem == "double":
            return function(b, x, False)
        return b.convert("fptrunc", function(b, b.convert("fpext", x, "double"), True), "float")

    return wrapped


def _asin(b: Builder, x: Value) -> Value:
    """Up to ½ a polynomial; beyond, π/2 - 2·asin √((1 - x) / 2)."""
    w = _Writer(b, x)
    size = w.abs(x)
    near = w.less(size, w.c(0.5))
    root = w.sqrt(w.mul(w.sub(w.c(1.0), size), w.c(0.5)))
    core = w.odd(w.select(near, size, root), table.ASIN_64)
    far = w.fma(core, w.c(-2.0), w.c(math.pi / 2))
    return w.with_sign(w.select(near, core, far), x)


def _acos(b: Builder, x: Value) -> Value:
    """From ½ on 2·asin √((1 - x) / 2), mirrored for negative x; in between π/2 - asin x."""
    w = _Writer(b, x)
    size = w.abs(x)
    near = w.less(size, w.c(0.5))
    root = w.sqrt(w.mul(w.sub(w.c(1.0), size), w.c(0.5)))
    core = w.odd(w.select(near, x, root), table.ASIN_64)
    double = w.add(core, core)
    far = w.select(w.less(x, w.c(0.0)), w.sub(w.c(math.pi), double), double)
    return w.select(near, w.sub(w.c(math.pi / 2), core), far)


def _atan(b: Builder, x: Value) -> Value:
    """1/x maps x > 1 into [0, 1]; (x - 1) / (x + 1) maps x > tan(π/8) into the polynomial's interval."""
    w = _Writer(b, x)
    size = w.abs(x)
    large = w.less(w.c(1.0), size)
    size = w.select(large, w.div(w.c(1.0), size), size)
    middle = w.less(w.c(math.sqrt(2) - 1), size)
    moved = w.div(w.sub(size, w.c(1.0)), w.add(size, w.c(1.0)))
    core = w.odd(w.select(middle, moved, size), table.ATAN_64)
    core = w.select(middle, w.add(core, w.c(math.pi / 4)), core)
    core = w.select(large, w.sub(w.c(math.pi / 2), core), core)
    return w.with_sign(core, x)


def _atan2(b: Builder, y: Value, x: Value) -> Value:
    w = _Writer(b, x)
    infinite = b.binary("and", *[b.compare("fcmp oeq", w.abs(v), w.c(math.inf)) for v in (x, y)])
    zero = b.binary("and", *[b.compare("fcmp oeq", v, w.c(0.0)) for v in (x, y)])
    ratio = w.select(infinite, w.c(1.0), w.abs(w.div(y, x)))
    angle = _atan(b, w.select(zero, w.c(0.0), ratio))
    negative = b.compare("icmp slt", w.as_bits(x), w.i(0))
    return w.with_sign(w.select(negative, w.sub(w.c(math.pi), angle), angle), y)


def _half_exp(w: _Writer, x: Value) -> tuple[Value, Value]:
    """e^|x| / 2 as a product of two factors, neither out of range, and e^-|x| / 2."""
    root = exp(w.b, w.mul(w.abs(x), w.c(0.5)))
    large = w.mul(w.mul(root, w.c(0.5)), root)
    return large, w.div(w.div(w.c(0.5), root), root)


def _sinh(b: Builder, x: Value) -> Value:
    w = _Writer(b, x)
    large, small = _half_exp(w, x)
    far = w.with_sign(w.sub(large, small), x)
    return w.select(w.less(w.abs(x), w.c(1.0)), w.odd(x, table.SINH_64), far)


def _cosh(b: Builder, x: Value) -> Value:
    w = _Writer(b, x)
    return w.add(*_half_exp(w, x))


def _asinh(b: Builder, x: Value) -> Value:
    """log1p(a + a² / (1 + √(1 + a²))), a = |x|; beyond 2²⁸ log 2a."""
    w = _Writer(b, x)
    size = w.abs(x)
    square = w.mul(size, size)
    near = log1p(b, w.add(size, w.div(square, w.add(w.c(1.0), w.sqrt(w.add(square, w.c(1.0)))))))
    far = w.add(log(b, size), w.c(math.log(2)))
    return w.with_sign(w.select(w.less(w.c(2.0**28), size), far, near), x)


def _acosh(b: Builder, x: Value) -> Value:
    """log1p(t + √(2t + t²)), t = x - 1; beyond 2²⁸ log 2x; NaN below 1, where the sum may round to 0."""
    w = _Writer(b, x)
    t = w.sub(x, w.c(1.0))
    near = log1p(b, w.add(t, w.sqrt(w.fma(t, t, w.add(t, t)))))
    far = w.add(log(b, x), w.c(math.log(2)))
    out = w.select(w.less(w.c(2.0**28), x), far, near)
    return w.select(w.less(x, w.c(1.0)), w.c(math.nan), out)


def _atanh(b: Builder, x: Value) -> Value:
    """½·log1p(2a / (1 - a)), a = |x|."""
    w = _Writer(b, x)
    size = w.abs(x)
    inner = log1p(b, w.div(w.add(size, size), w.sub(w.c(1.0), size)))
    return w.with_sign(w.mul(inner, w.c(0.5)), x)


def _pow(b: Builder, x: Value, y: Value) -> Value:
    """e^(y·log|x|) with the sign of an odd power, and IEEE 754's special cases (section 9.2.1)."""
    w = _Writer(b, x)
    logarithm = log(b, w.abs(x))
    product = w.mul(y, logarithm)
    lost = w.fma(y, logarithm, w.neg(product))
    size = exp(b, product)
    # e^(p + δ) = e^p·(1 + δ); not where e^p or δ is not finite.
    corrected = w.fma(size, lost, size)
    size = w.select(w.less(w.abs(w.mul(size, lost)), w.c(math.inf)), corrected, size)
    whole = b.compare("fcmp oeq", b.call("floor", y), y)
    half = w.mul(y, w.c(0.5))
    odd = b.binary("and", whole, b.compare("fcmp une", b.call("floor", half), half))
    signed = w.select(b.binary("and", odd, b.compare("icmp slt", w.as_bits(x), w.i(0))), w.neg(size), size)
    infinite = b.compare("fcmp oeq", w.abs(x), w.c(math.inf))
    valid = b.binary("or", b.binary("or", whole, infinite), b.compare("fcmp uge", x, w.c(0.0)))
    out = w.select(valid, signed, w.c(math.nan))
    unit = b.binary(
        "and", b.compare("fcmp oeq", x, w.c(-1.0)), b.compare("fcmp oeq", w.abs(y), w.c(math.inf))
    )
    one = b.binary("or", b.compare("fcmp oeq", y, w.c(0.0)), b.compare("fcmp oeq", x, w.c(1.0)))
    return w.select(b.binary("or", one, unit), w.c(1.0), out)


MATH_FUNCTIONS: Mapping[str, Callable[..., Value]] = {
    "exp": exp,
    "log": log,
    "tanh": tanh,
    "erf": erf,
    **{function.__name__[1:]: _through_double(function) for function in (_asin, _acos, _atan, _atan2)},
    **{function.__name__[1:]: _of_an_angle(function) for function in (_sin, _cos, _tan)},
    **{
        function.__name__[1:]: _through_double(function)
        for function in (_sinh, _cosh, _asinh, _acosh, _atanh, _pow)
    },
}
