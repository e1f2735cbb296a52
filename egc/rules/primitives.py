"""The primitives of egglog 13.2 that rules may compute with, and their signatures.

In a signature `V` stands for any declared vector sort and `E` for its elements, `N` for a vector sort of i64,
`A` for any one sort; `F` for a function sort of one argument that takes the elements of `V` to those of `W`.
A star behind an argument means any number of it. A primitive whose result is Unit is a test: as a premise it
holds or the rule does not match. One whose result is bool is a value: as a premise it would always hold.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import product

from msgspec import Struct

BUILTIN_SORTS = ("i64", "f64", "String", "bool", "Unit")
CONTAINERS = {"Vec": "(Vec SORT)", "UnstableFn": "(UnstableFn (SORT…) SORT)"}

_COMPARISONS = ("i64 i64 -> Unit", "f64 f64 -> Unit")
_ARITHMETIC = ("i64 i64 -> i64", "f64 f64 -> f64")
_I64_TWO = ("i64 i64 -> i64",)
_I64_TEST = ("i64 i64 -> bool",)
_BOOL_TWO = ("bool bool -> bool",)

SIGNATURES: dict[str, tuple[str, ...]] = {
    "+": (*_ARITHMETIC, "String* -> String"),
    "-": _ARITHMETIC,
    "*": _ARITHMETIC,
    "/": _ARITHMETIC,
    "%": _ARITHMETIC,
    "^": _ARITHMETIC,
    "&": _I64_TWO,
    "|": _I64_TWO,
    "<<": _I64_TWO,
    ">>": _I64_TWO,
    "not-i64": ("i64 -> i64",),
    "log2": ("i64 -> i64",),
    "abs": ("i64 -> i64", "f64 -> f64"),
    "neg": ("f64 -> f64",),
    "min": _ARITHMETIC,
    "max": _ARITHMETIC,
    "to-f64": ("i64 -> f64",),
    "to-i64": ("f64 -> i64",),
    "to-string": ("i64 -> String", "f64 -> String"),
    "!=": ("A A -> Unit",),
    "<": _COMPARISONS,
    ">": _COMPARISONS,
    "<=": _COMPARISONS,
    ">=": _COMPARISONS,
    "bool-=": _I64_TEST,
    "bool-<": _I64_TEST,
    "bool->": _I64_TEST,
    "bool-<=": _I64_TEST,
    "bool->=": _I64_TEST,
    "not": ("bool -> bool",),
    "and": _BOOL_TWO,
    "or": _BOOL_TWO,
    "xor": _BOOL_TWO,
    "=>": _BOOL_TWO,
    "guard": ("bool -> Unit",),
    "replace": ("String String String -> String",),
    "count-matches": ("String String -> i64",),
    "vec-of": ("E* -> V",),
    "vec-empty": ("-> V",),
    "vec-push": ("V E -> V",),
    "vec-pop": ("V -> V",),
    "vec-append": ("V* -> V",),
    "vec-get": ("V i64 -> E",),
    "vec-set": ("V i64 E -> V",),
    "vec-remove": ("V i64 -> V",),
    "vec-length": ("V -> i64",),
    "vec-contains": ("V E -> Unit",),
    "vec-not-contains": ("V E -> Unit",),
    "vec-range": ("i64 -> N",),
    "unstable-vec-map": ("F V -> W",),
    # The name of a function and its first arguments; an application to the others. What fits depends on the
    # name.
    "unstable-fn": (),
    "unstable-app": (),
}


class Signature(Struct, frozen=True):
    """Argument sorts, the last of them repeated any number of times where `variadic`, and the result's
    sort.
    """

    inputs: tuple[str, ...]
    output: str
    variadic: bool = False

    def of_arity(self, count: int) -> Signature | None:
        """The signature for `count` arguments; None where it takes another number."""
        if self.variadic:
            return Signature(self.inputs * count, self.output)
        return self if len(self.inputs) == count else None

    def __str__(self) -> str:
        inputs = (*self.inputs, "…") if self.variadic else self.inputs
        return f"({' '.join(inputs)}) → {self.output}"


def _read(text: str) -> Signature:
    inputs, output = text.split("->")
    return Signature(tuple(inputs.replace("*", "").split()), output.strip(), "*" in inputs)


class VectorSort(Struct, frozen=True):
    """`(sort NAME (Vec ELEMENT))`."""

    name: str
    element: str


class FunctionSort(Struct, frozen=True):
    """`(sort NAME (UnstableFn (INPUTS…) OUTPUT))`."""

    name: str
    inputs: tuple[str, ...]
    output: str


@lru_cache(maxsize=1024)
def signatures(
    head: str, compound: tuple[VectorSort | FunctionSort, ...], sorts: tuple[str, ...]
) -> tuple[Signature, ...]:
    """What `head` may mean with these compound sorts among all `sorts`; for `unstable-fn` see `captures`."""
    if head == "unstable-app":
        functions = [f for f in compound if isinstance(f, FunctionSort)]
        return tuple(Signature((f.name, *f.inputs), f.output) for f in functions)
    found: list[Signature] = []
    for generic in map(_read, SIGNATURES[head]):
        letters = {*generic.inputs, generic.output}
        for binding in _bindings(letters, compound, sorts):
            inputs = tuple(binding.get(i, i) for i in generic.inputs)
            found.append(Signature(inputs, binding.get(generic.output, generic.output), generic.variadic))
    return tuple(found)


def _bindings(
    letters: set[str], compound: tuple[VectorSort | FunctionSort, ...], sorts: tuple[str, ...]
) -> Iterable[dict[str, str]]:
    vectors = [v for v in compound if isinstance(v, VectorSort)]
    if "F" in letters:
        return [
            {"F": f.name, "V": v.name, "W": w.name}
            for f in compound
            if isinstance(f, FunctionSort)
            for v, w in product(vectors, vectors)
            if (v.element,) == f.inputs and w.element == f.output
        ]
    if "N" in letters:
        return [{"N": v.name} for v in vectors if v.element == "i64"]
    if letters & {"V", "E"}:
        return [{"V": v.name, "E": v.element} for v in vectors]
    return [{"A": sort} for sort in sorts] if "A" in letters else [{}]


def captures(
    meanings: Iterable[Signature], captured: int, compound: tuple[VectorSort | FunctionSort, ...]
) -> tuple[Signature, ...]:
    """What `(unstable-fn "name" ARG…)` may mean with `captured` arguments, given what the named function may
    mean.
    """
    return tuple(
        Signature(("String", *m.inputs[:captured]), f.name)
        for f in compound
        if isinstance(f, FunctionSort)
        for m in meanings
        if m.inputs[captured:] == f.inputs and m.output == f.output
    )
