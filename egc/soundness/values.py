"""egglog's primitives over plain values, as egglog 13.2 computes them.

Vectors are tuples, dims are integers, a permutation is a :class:`Perm`, a scalar function is its name, a
function value (``unstable-fn``) is a :class:`Closure`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct


class Undefined(Exception):
    """A primitive without a value here: as a premise it does not match, in an action it stops egglog."""


class Rejected(Exception):
    """An attempt at an instance that does not satisfy the premises, or whose left side has no value."""


class Perm(Struct, frozen=True):
    """The arguments of ``(P perm inverse)``."""

    axes: tuple[int, ...]
    inverse: tuple[int, ...]

    @property
    def is_valid(self) -> bool:
        """Whether the first is a permutation and the second its inverse."""
        n = len(self.axes)
        if sorted(self.axes) != list(range(n)) or len(self.inverse) != n:
            return False
        return all(self.inverse[axis] == i for i, axis in enumerate(self.axes))


class Closure(Struct, frozen=True):
    """``(unstable-fn "name" captured…)``."""

    name: str
    captured: tuple[Any, ...]


def apply(head: str, args: Sequence[Any]) -> Any:
    """The value of ``(head args…)``; True for a test that holds. Raises Undefined."""
    try:
        if head == "unstable-fn":
            return Closure(args[0], tuple(args[1:]))
        if head == "unstable-app":
            return apply(args[0].name, (*args[0].captured, *args[1:]))
        if head == "unstable-vec-map":
            return tuple(apply(args[0].name, (*args[0].captured, item)) for item in args[1])
        if head in _SAME_FOR_ALL:
            return _SAME_FOR_ALL[head](*args)
        if args and isinstance(args[0], float):
            return _FLOATS[head](*args)
        return _wrapped(_INTS[head](*args))
    except (IndexError, ZeroDivisionError, OverflowError, ValueError, KeyError, TypeError) as error:
        # A TypeError comes of an extent that is not known when compiling: no primitive takes it for a number.
        raise Undefined(f"({head} …): {error}") from None


def same(a: Any, b: Any) -> bool:
    """Equality as egglog has it: 1, 1.0 and true differ, NaN equals itself, and so do the two zeros."""
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (math.isnan(a) and math.isnan(b))
    return type(a) is type(b) and a == b


def _wrapped(value: Any) -> Any:
    """64-bit integers; egglog gives no value where one overflows."""
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        raise OverflowError("out of range")
    return value


def _truncated(a: int, b: int) -> int:
    quotient = abs(a) // abs(b)
    return quotient if (a < 0) == (b < 0) else -quotient


def _at(items: tuple[Any, ...], i: int) -> Any:
    if not 0 <= i < len(items):
        raise IndexError(f"{i} is not below {len(items)}")
    return items[i]


def _put(items: tuple[Any, ...], i: int, item: Any) -> tuple[Any, ...]:
    _at(items, i)
    return (*items[:i], item, *items[i + 1 :])


def _drop(items: tuple[Any, ...], i: int) -> tuple[Any, ...]:
    _at(items, i)
    return items[:i] + items[i + 1 :]


def _popped(items: tuple[Any, ...]) -> tuple[Any, ...]:
    _at(items, 0)
    return items[:-1]


def _test(holds: bool) -> bool:
    if not holds:
        raise ValueError("does not hold")
    return True


def _contains(items: tuple[Any, ...], item: Any) -> bool:
    return any(same(item, other) for other in items)


_SAME_FOR_ALL: Mapping[str, Callable[..., Any]] = {
    "!=": lambda a, b: _test(not same(a, b)),
    "<": lambda a, b: _test(a < b),
    ">": lambda a, b: _test(a > b),
    "<=": lambda a, b: _test(a <= b),
    ">=": lambda a, b: _test(a >= b),
    "bool-=": lambda a, b: a == b,
    "bool-<": lambda a, b: a < b,
    "bool->": lambda a, b: a > b,
    "bool-<=": lambda a, b: a <= b,
    "bool->=": lambda a, b: a >= b,
    "not": lambda a: not a,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "xor": lambda a, b: a != b,
    "=>": lambda a, b: not a or b,
    "guard": _test,
    "min": min,
    "max": max,
    "to-f64": float,
    "to-i64": int,
    "to-string": str,
    "replace": lambda text, old, new: text.replace(old, new),
    "count-matches": lambda text, part: text.count(part),
    "vec-of": lambda *items: tuple(items),
    "vec-empty": lambda: (),
    "vec-push": lambda items, item: (*items, item),
    "vec-pop": _popped,
    "vec-append": lambda *parts: tuple(item for part in parts for item in part),
    "vec-get": _at,
    "vec-set": _put,
    "vec-remove": _drop,
    "vec-length": len,
    "vec-contains": lambda items, item: _test(_contains(items, item)),
    "vec-not-contains": lambda items, item: _test(not _contains(items, item)),
    "vec-range": lambda n: tuple(range(n)),
}

_FLOATS: Mapping[str, Callable[..., Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,  # egglog has no quotient by zero, for floats either
    "%": math.fmod,
    "^": lambda a, b: a**b,
    "abs": abs,
    "neg": lambda a: -a,
}

_INTS: Mapping[str, Callable[..., Any]] = {
    "+": lambda a, *rest: a + rest[0] if not isinstance(a, str) else a + "".join(rest),
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _truncated,
    "%": lambda a, b: a - b * _truncated(a, b),
    "^": lambda a, b: a ^ b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "<<": lambda a, b: a << b,
    ">>": lambda a, b: a >> b,
    "not-i64": lambda a: ~a,
    "log2": lambda a: a.bit_length() - 1,
    "abs": abs,
}
