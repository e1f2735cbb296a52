"""Evaluating both sides of a rule, and what counts as equal.

Where both sides only move and combine numbers by operations that round once (arithmetic, comparisons, views),
an exact rule must give the same bits, but for the sign of a zero and the bits of a NaN. In float32 and
float64 that holds for all scalar functions: both sides must call them with the same numbers. (Narrow floats
are computed in float32 and rounded once for each operator, so that a function and its definition differ.)
Everything else in floating point is compared in double precision whatever the dtype, so that the tolerance
speaks of the mathematics and not of rounding: it is a few units in the last place *of the left side's dtype*
(constants in a rule file are rounded to that) relative to the greatest number on the way, as cancellation may
amplify what is rounded there.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from egc.ir.evaluate import evaluate_node
from egc.ir.types import FLOATS, dtype_of, is_float, numpy_dtype
from egc.rules.notes import RuleClass
from egc.soundness.plan import Plan, State, attribute_values
from egc.soundness.values import Rejected

# fmt: off
_ROUNDS_ONCE = frozenset({
    "neg", "abs", "sqrt", "floor", "ceil", "round", "sign", "isnan", "isinf", "not", "bit_not", "add", "sub",
    "mul", "div", "mod", "fmod", "min", "max", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "xor",
    "bit_and", "bit_or", "bit_xor", "shift_left", "shift_right", "select", "relu", "reciprocal",
})
_VIEWS = frozenset({
    "leaf", "splat", "output", "reshape", "transpose", "slice", "pad", "expand", "concat", "gather",
    "gather_elements", "gather_nd", "scatter_elements", "scatter_nd", "iota", "dim", "cast", "topk",
    "arg_reduce",
})
# fmt: on
_COMPOSED = frozenset({"softmax", "layer_norm", "rms_norm", "attention"})  # in double precision, rounded once
_SUMMING = frozenset({"matmul", "conv", "conv_channels_last", "cumulate"}) | _COMPOSED
_ACCUMULATING = frozenset({"reduce", "pool"}) | _SUMMING
_STEPWISE = frozenset({"float32", "float64"})  # functions round as their definitions do
_EPSILON = {"float64": 2.3e-16, "float32": 1.2e-7, "float16": 9.8e-4, "bfloat16": 7.9e-3}
_ULPS = 4.0  # of the dtype, relative to the greatest number on the way
_DOUBLE = 1e-12  # at least: what evaluating in double precision may differ by
_APPROXIMATE = 1e-2  # of a rule that is `approximate` and states no `error:`


class Evaluation:
    """Values of nodes over arrays for the leaves; ``wide`` computes every float in double precision."""

    def __init__(self, plan: Plan, state: State, leaves: Mapping[int, Any], wide: bool) -> None:
        self.plan = plan
        self.state = state
        self.wide = wide
        self.scale = 0.0
        self.values: dict[int, Any] = {}
        for i, value in leaves.items():
            self.keep(i, value)

    def keep(self, i: int, value: Any) -> None:
        """Remember a value and the greatest finite number seen."""
        for part in value if isinstance(value, tuple) else (value,):
            if part.size and is_float(dtype_of(part)):
                finite = np.abs(part.astype(np.float64))
                finite = finite[np.isfinite(finite)]
                self.scale = max(self.scale, float(finite.max(initial=0.0)))
        if self.wide and not isinstance(value, tuple) and dtype_of(value) in FLOATS:
            value = value.astype(np.float64)
        self.values[i] = value

    def value(self, i: int) -> Any:
        """The value of a node. Raises EvaluateError, and whatever numpy raises."""
        if i not in self.values:
            self.keep(i, self.compute(i))
        return self.values[i]

    def compute(self, i: int) -> Any:
        """The value of a node from those of its operands."""
        node = self.plan.nodes[i]
        attrs = attribute_values(node, self.state)
        if node.op == "splat":
            with np.errstate(all="ignore"):
                return np.asarray(attrs["value"]).astype(numpy_dtype(attrs["dtype"]))
        # numpy's loops over strided and over contiguous memory need not round alike.
        args = [_contiguous(self.value(child)) for child in node.children]
        if node.op == "output":
            return args[0][attrs["index"]]
        results = evaluate_node(node.op, args, attrs)
        return results if len(results) > 1 else np.asarray(results[0])


def reachable(plan: Plan, roots: Iterable[int]) -> set[int]:
    """The nodes that ``roots`` are computed from, themselves included."""
    found: set[int] = set()
    stack = list(roots)
    while stack:
        i = stack.pop()
        if i not in found:
            found.add(i)
            stack.extend(plan.nodes[i].children)
    return found


class Comparison:
    """How the two sides of one union are compared at one instance."""

    def __init__(
        self, plan: Plan, state: State, sides: tuple[int, int], rule_class: RuleClass, error: float | None
    ) -> None:
        self.plan = plan
        self.state = state
        self.sides = sides
        self.rule_class = rule_class
        self.error = error
        nodes = [(i, plan.nodes[i]) for i in reachable(plan, sides)]
        ops = {node.op for _, node in nodes}
        self.fns = {
            attribute_values(node, state)["fn"]
            for _, node in nodes
            if node.op in ("map", "reduce", "pool", "cumulate")
        }
        summing = bool(ops & _SUMMING) or any(
            node.op in ("reduce", "pool") and attribute_values(node, state)["fn"] in ("add", "mul")
            for _, node in nodes
        )
        self.floats = _floats(plan, state, sides)
        reference = _floats(plan, state, sides[:1]) or self.floats
        self.epsilon = max((_EPSILON[dtype] for dtype in reference), default=0.0)
        left, right = ({plan.nodes[i].op for i in reachable(plan, [side])} & _COMPOSED for side in sides)
        rounds_alike = (
            ops <= _VIEWS | _ACCUMULATING | {"map"}
            and left == right  # what is composed rounds once here, its steps would each by themselves
            and (self.fns <= _ROUNDS_ONCE or self.floats <= _STEPWISE)
        )
        exact = rule_class is RuleClass.EXACT
        # In double precision there is no wider type to accumulate in:
        # sums in another order round differently.
        self.bitwise = not self.floats or (
            exact and rounds_alike and not (summing and "float64" in self.floats)
        )
        self.allowed = 1 if summing else 0  # elements that may round differently: the sum lay on the edge
        self.wide = not self.bitwise and "cast" not in ops
        self.summing = summing

    def tolerance(self, scale: float) -> float:
        """The greatest difference that is no difference."""
        if self.rule_class is RuleClass.APPROXIMATE:
            return (self.error or _APPROXIMATE) * scale
        relative = self.epsilon * (_ULPS if self.wide else 64.0)
        return max(relative, _DOUBLE) * scale

    def differ(self, leaves: Mapping[int, Any]) -> tuple[Any, Any, Any] | None:
        """Both values and where they differ (a mask), at data for the leaves; None where they are equal.

        Raises Rejected where the left side has no value; what the right side raises comes through.
        """
        run = Evaluation(self.plan, self.state, leaves, self.wide)
        with warnings.catch_warnings():
            # Means of nothing, overflow: what is being looked for.
            warnings.simplefilter("ignore", RuntimeWarning)
            return self.values_differ(run)

    def values_differ(self, run: Evaluation) -> tuple[Any, Any, Any] | None:
        """Both values and where they differ; None where they are equal."""
        try:
            left = run.value(self.sides[0])
        except Exception as error:
            raise Rejected(str(error)) from None
        if not self.has_its_shape(left, self.sides[0]):
            raise Rejected("inference and evaluation disagree")
        right = run.value(self.sides[1])
        for a, b in zip(_parts(left), _parts(right), strict=True):
            if a.shape != b.shape:
                return a, b, np.ones((), bool)
            bits, beyond = self.masks(a, b, run.scale)
            if beyond.any() or (self.bitwise and bits.sum() > self.allowed):
                return a, b, bits
        return None

    def has_its_shape(self, value: Any, side: int) -> bool:
        """Whether a value has the shape that was inferred for it."""
        types = _parts(self.state.types[side])
        return [part.shape for part in _parts(value)] == [type_.shape for type_ in types]

    def masks(self, a: Any, b: Any, scale: float) -> tuple[Any, Any]:
        """Where two arrays of one shape differ at all, and where they differ by more than the tolerance."""
        with np.errstate(all="ignore"):
            if not is_float(dtype_of(a)):
                wrong = np.asarray(a != b)
                return wrong, wrong
            a, b = a.astype(np.float64), b.astype(np.float64)
            wrong = np.asarray(~((a == b) | (np.isnan(a) & np.isnan(b))))
            return wrong, wrong & ~(np.abs(a - b) <= self.tolerance(scale))


def _floats(plan: Plan, state: State, roots: Iterable[int]) -> set[str]:
    """The floating-point dtypes of what ``roots`` are computed from and by."""
    return {t.dtype for i in reachable(plan, roots) for t in _parts(state.types[i])} & {*FLOATS}


def _contiguous(value: Any) -> Any:
    return tuple(map(np.ascontiguousarray, value)) if isinstance(value, tuple) else value.copy(order="C")


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)
