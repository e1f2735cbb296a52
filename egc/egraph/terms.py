"""Building egglog terms and actions as syntax trees, without going through text.

egglog's parser copies the whole source into every node's span, so parsing a long program is quadratic; trees
built here share one span.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from egc.ir.dims import Dim
from egc.ir.scalar import FUNCTIONS


class Terms:
    """A factory of egglog syntax. ``bindings`` is the module ``egglog.bindings``; ``heads`` has the head
    of every term that was built.
    """

    def __init__(self, bindings: Any) -> None:
        self.bindings = bindings
        self._span = bindings.RustSpan("egc", 0, 0)
        # What comes up again and again is made once.
        self._literals: dict[tuple[type, int | str], Any] = {}
        self._dims: dict[tuple[Dim, ...], Any] = {}
        self.heads: set[str] = set()

    def call(self, name: str, *args: Any) -> Any:
        """The term ``(name args…)``."""
        self.heads.add(name)
        return self.bindings.Call(self._span, name, list(args))

    def literal(self, value: int | float | str | bool) -> Any:
        """A literal term."""
        b = self.bindings
        if isinstance(value, float):  # zeros are equal and differ
            return b.Lit(self._span, b.Float(value))
        key = (type(value), value)
        if key not in self._literals:
            wrap = b.Bool if isinstance(value, bool) else b.Int if isinstance(value, int) else b.String
            self._literals[key] = b.Lit(self._span, wrap(value))
        return self._literals[key]

    def vector(self, items: Sequence[Any]) -> Any:
        """A vector term; its sort follows from where it stands."""
        return self.call("vec-of", *items) if items else self.call("vec-empty")

    def ints(self, values: Iterable[int]) -> Any:
        """An IVec term."""
        return self.vector([self.literal(value) for value in values])

    def dims(self, values: Iterable[Dim]) -> Any:
        """A DVec term: known extents are ``(I n)``, symbolic ones ``(Sym text)``."""
        shape = tuple(values)
        if shape not in self._dims:
            terms = [
                self.call("I", self.literal(d))
                if isinstance(d, int)
                else self.call("Sym", self.literal(str(d)))
                for d in shape
            ]
            self._dims[shape] = self.vector(terms)
        return self._dims[shape]

    def perm(self, perm: Sequence[int]) -> Any:
        """A Perm term with its inverse."""
        inverse = [0] * len(perm)
        for i, axis in enumerate(perm):
            inverse[axis] = i
        return self.call("P", self.ints(perm), self.ints(inverse))

    def fn(self, name: str) -> Any:
        """A scalar function's term, such as ``(GeluErf)``."""
        return self.call(FUNCTIONS[name].constructor)

    def attr(self, sort: str, value: Any) -> Any:
        """An attribute's term by the sort that it has in rule files."""
        match sort:
            case "IVec":
                return self.ints(value)
            case "DVec":
                return self.dims(value)
            case "Perm":
                return self.perm(value)
            case "Fn":
                return self.fn(value)
            case "f64":
                return self.literal(float(value))
            case _:
                return self.literal(value)

    def union(self, left: Any, right: Any) -> Any:
        """The command that asserts ``left = right``."""
        b = self.bindings
        return b.ActionCommand(b.Union(self._span, left, right))

    def set(self, function: str, args: Sequence[Any], value: Any) -> Any:
        """The command that asserts ``(function args…) = value``."""
        b = self.bindings
        return b.ActionCommand(b.Set(self._span, function, list(args), value))

    def assert_(self, term: Any) -> Any:
        """The command that asserts a relation's row."""
        b = self.bindings
        return b.ActionCommand(b.Expr_(self._span, term))
