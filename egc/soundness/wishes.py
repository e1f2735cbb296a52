"""What the equations of a plan say of a vector that is still to be chosen: its length, and some of its items.

Operands and attributes are drawn at random, so a shape that a premise spells out, `(vec-of (I n) (I 64))`,
would hardly ever come up. What is drawn is therefore compared with these wishes first, and bent to them in
the end; whether all premises hold is decided afterwards, by the equations themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct, field

from egc.soundness.plan import Code

Known = Callable[[Code], Any]  # the value of a code, None where it is not known yet


class Wish(Struct):
    """Items of a vector by position, and its length; what is missing is free."""

    length: int | None = None
    items: dict[int, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.length is not None or bool(self.items)

    def is_met(self, value: Sequence[Any]) -> bool:
        """Whether a vector is as wished."""
        if self.length is not None and len(value) != self.length:
            return False
        return all(i < len(value) and value[i] == item for i, item in self.items.items())

    def imposed_on(self, value: Sequence[Any], fill: Callable[[], Any]) -> tuple[Any, ...]:
        """A vector as wished that keeps what it can of ``value``; ``fill`` gives items that are missing."""
        length = self.length if self.length is not None else max(len(value), *(i + 1 for i in self.items), 0)
        kept = [value[i] if i < len(value) else fill() for i in range(length)]
        return tuple(self.items.get(i, item) for i, item in enumerate(kept))


def wish_for(subject: Code, equations: Iterable[tuple[Code, Code]], known: Known) -> Wish:
    """What is asked of the vector ``subject``, by its own spelling and by equations."""
    wish = Wish()
    _spelled(subject, wish, known)
    for a, b in equations:
        for left, right in ((a, b), (b, a)):
            if left == subject:
                _spelled(right, wish, known)
            elif left[0] == "prim" and len(left) > 2 and left[2] == subject:
                _measured(left, known(right), wish, known)
    return wish


def _spelled(code: Code, wish: Wish, known: Known) -> None:
    """A vector that is known, or written out item by item."""
    value = known(code)
    if isinstance(value, tuple):
        wish.length, wish.items = len(value), dict(enumerate(value))
    elif code[:2] == ("prim", "vec-of"):
        wish.length = len(code) - 2
        wish.items |= {i: item for i, part in enumerate(code[2:]) if (item := known(part)) is not None}


def _measured(code: Code, value: Any, wish: Wish, known: Known) -> None:
    """A length, or one item."""
    if value is None:
        return
    if code[1] == "vec-length":
        wish.length = value
    elif code[1] == "vec-get" and (at := known(code[3])) is not None and at >= 0:
        wish.items[at] = value
