"""Writes egc/codegen/math_coefficients.py: the polynomials of the generated code's exp, log, tanh, …

Each is interpolated at the Chebyshev nodes of its interval, in 60 digits: within a small factor of the best
polynomial of its degree (Trefethen, Approximation Theory and Approximation Practice, theorem 16.1).
Rational approximations solve P(z) - f(z)·Q(z) = 0, Q(0) = 1, at the nodes. Needs mpmath.

    python scripts/fit_polynomials.py > egc/codegen/math_coefficients.py
"""

from __future__ import annotations

from collections.abc import Callable

from mpmath import (
    asin,
    atan,
    atanh,
    cos,
    erf,
    erfc,
    exp,
    ldexp,
    log,
    log1p,
    lu_solve,
    matrix,
    mp,
    mpf,
    pi,
    sin,
    sinh,
    sqrt,
    tanh,
    workprec,
)

mp.dps = 60
Function = Callable[[mpf], mpf]
TABLES: list[tuple[str, str, list[mpf]]] = []


def nodes(low: mpf, high: mpf, count: int) -> list[mpf]:
    """The Chebyshev nodes of an interval."""
    middle, half = (low + high) / 2, (high - low) / 2
    return [middle + half * cos(pi * (2 * i + 1) / (2 * count)) for i in range(count)]


def polynomial(
    name: str, comment: str, f: Function, low: float | mpf, high: float | mpf, degree: int
) -> None:
    """Add the interpolant of `f` to the tables."""
    points = nodes(mpf(low), mpf(high), degree + 1)
    system = matrix([[x**power for power in range(degree + 1)] for x in points])
    TABLES.append((name, comment, list(lu_solve(system, matrix([f(x) for x in points])))))


def rational(name: str, comment: str, f: Function, high: mpf, above: int, below: int) -> None:
    """Add numerator and denominator of a rational interpolant of `f` on [0, high]; the denominator's
    constant is 1.
    """
    points = nodes(mpf(1e-12), mpf(high), above + below + 1)
    rows = [[x**p for p in range(above + 1)] + [-f(x) * x**p for p in range(1, below + 1)] for x in points]
    found = list(lu_solve(matrix(rows), matrix([f(x) for x in points])))
    TABLES.append((f"{name}_ABOVE", comment, found[: above + 1]))
    TABLES.append((f"{name}_BELOW", "", [mpf(1), *found[above + 1 :]]))


def odd(f: Function) -> Function:
    """g with f(x) = x + x³·g(x²)."""
    return lambda z: (f(sqrt(z)) - sqrt(z)) / (z * sqrt(z))


def fit_exponentials() -> None:
    """exp, log, tanh, erf."""
    half = log(2) / 2 * mpf("1.001")
    text = "exp(r) = 1 + r + r²·P(r), |r| <= ln 2 / 2"
    for bits, degree in ((32, 4), (64, 10)):
        polynomial(
            f"EXP_{bits}", text, lambda r: (exp(r) - 1 - r) / r**2, -half, half * mpf("1.0001"), degree
        )
    low, high = sqrt(mpf(2)) / 2 - 1, sqrt(mpf(2)) - 1
    text = "log(1 + f) = f - f²/2 + f³·P(f), √½ <= 1 + f <= √2"
    polynomial("LOG_32", text, lambda f: (log1p(f) - f + f**2 / 2) / f**3, low, high, 7)
    limit = (high / (2 + high)) ** 2 * mpf("1.001")
    text = "2·atanh(s) = 2s + s³·P(s²), s = f / (2 + f)"
    polynomial("LOG_64", text, lambda z: 2 * odd(atanh)(z), 1e-12, limit, 8)
    text = "{}(x) = x·P(x²) / Q(x²), |x| <= {}"
    rational("TANH_32", text.format("tanh", 9), lambda z: tanh(sqrt(z)) / sqrt(z), mpf(81), 5, 5)
    rational("ERF_32", text.format("erf", 3.93), lambda z: erf(sqrt(z)) / sqrt(z), mpf("3.93") ** 2, 6, 6)
    polynomial("TANH_64", "tanh(x) = x + x³·P(x²), |x| <= ½", odd(tanh), 1e-12, 0.2501, 11)
    text = "erf(x) = x·P(x²), |x| <= 1"
    polynomial("ERF_64", text, lambda z: erf(sqrt(z)) / sqrt(z), 1e-12, 1.001, 12)
    text = "erfc(x) = exp(-x²)·P(2 / (2 + x)), 1 <= x <= 6"
    polynomial("ERFC_64", text, lambda t: erfc(2 / t - 2) * exp((2 / t - 2) ** 2), 0.2499, 0.6668, 16)


def fit_circular() -> None:
    """sin, cos, asin, atan, sinh."""
    quarter = (pi / 4) ** 2 * mpf("1.001")
    polynomial("SIN_64", "sin(x) = x + x³·P(x²), |x| <= π/4", odd(sin), 1e-12, quarter, 6)
    text = "cos(x) = 1 - x²/2 + x⁴·P(x²), |x| <= π/4"
    polynomial("COS_64", text, lambda z: (cos(sqrt(z)) - 1 + z / 2) / z**2, 1e-12, quarter, 6)
    polynomial("ASIN_64", "asin(x) = x + x³·P(x²), |x| <= ½", odd(asin), 1e-12, 0.2501, 13)
    eighth = ((sqrt(mpf(2)) - 1) * mpf("1.0001")) ** 2
    polynomial("ATAN_64", "atan(x) = x + x³·P(x²), |x| <= tan(π/8)", odd(atan), 1e-12, eighth, 11)
    polynomial("SINH_64", "sinh(x) = x + x³·P(x²), |x| <= 1", odd(sinh), 1e-12, 1.001, 7)


def pieces_of_two_over_pi(count: int, bits: int) -> None:
    """2/π as a sum of numbers of `bits` bits: products of one with half a double are exact."""
    with workprec(count * bits + 64):
        digits = int(2 / pi * mpf(2) ** (count * bits))
    pieces = [digits >> (bits * i) & (1 << bits) - 1 for i in reversed(range(count))]
    scaled = [ldexp(mpf(piece), 512 - bits * (i + 1)) for i, piece in enumerate(pieces)]
    text = f"2/π in pieces of {bits} bits, 2⁵¹² times as large: none is subnormal"
    TABLES.append(("TWO_OVER_PI", text, scaled))


def main() -> None:
    """Print the module."""
    fit_exponentials()
    fit_circular()
    pieces_of_two_over_pi(50, 24)
    print('"""Coefficients of the polynomials in math_functions.py, constant first.')
    print('\nMade by scripts/fit_polynomials.py; do not edit.\n"""')
    for name, comment, coefficients in TABLES:
        if comment:
            print(f"\n# {comment}.")
        print(f"{name} = (")
        for value in coefficients:
            print(f"    {float(value)!r},")
        print(")")


if __name__ == "__main__":
    main()
