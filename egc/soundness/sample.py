"""A plan → types and attributes that satisfy it.

Equations of attributes are solved as far as known values go; what is left over is chosen, one operator after
another from the leaves upwards, and the equations are looked at again.
An attempt that breaks one is given up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Set
from functools import partial
from itertools import chain
from typing import Any

import numpy as np

from egc.ir.infer import InferError, infer
from egc.ir.types import DTYPES, TensorType, is_float, is_integer, numpy_dtype
from egc.soundness.context import Context, admits, row_vector
from egc.soundness.fit import choose_attribute, choose_operand, order
from egc.soundness.plan import Code, Node, Plan, State, Unbound, attribute_values, bind, evaluate, variables
from egc.soundness.values import Perm, Rejected, Undefined, same
from egc.soundness.wishes import Wish, wish_for

PROPOSALS = 8  # random operands or attributes that are compared with what the equations ask for
NUMBERS = 8  # of integers that stand in no tensor, besides those that the rule speaks of
TRIES = 4  # of what is open of one node, before all that was chosen so far is given up


def sample(plan: Plan, context: Context) -> State:
    """Types of the nodes of the premises, and values of the attributes. Raises Rejected."""
    return _Sampler(plan, context).run()


class _Sampler:
    def __init__(self, plan: Plan, context: Context) -> None:
        self.plan = plan
        self.left = plan.left
        self.context = context
        self.state = State(len(plan.nodes))
        self.equations = list(plan.equations)
        self.tests = list(plan.tests)

    def run(self) -> State:
        nodes = self.plan.nodes
        waiting = [i for i in range(self.left) if nodes[i].op != "leaf"]
        self.propagate()
        while waiting:
            ready = [i for i in waiting if all(self.is_ready(child) for child in nodes[i].children)]
            asked = {name for pair in self.equations for code in pair for name in variables(code)}
            chosen = min(ready, key=lambda i: (self.asked_for(nodes[i], asked), i))
            self.tried(partial(self.fit, chosen, nodes[chosen]), TRIES)
            waiting.remove(chosen)
        for i in range(self.left):
            if self.state.types[i] is None:
                self.propagate()
                self.state.types[i] = self.leaf(i, self.any_type)
        for claim in self.plan.claims:
            if claim.kind == "equal":  # of attributes, which may stand in no tensor
                for name in sorted({name for code in claim.about for name in variables(code)}):
                    self.state.values.setdefault(name, self.context.extent())
        self.propagate()
        self.tried(self.number, PROPOSALS)
        if self.equations or self.tests:
            raise Rejected("some premises speak of values that nothing determines")
        for i in self.plan.rows:
            if any(d != 1 for d in self.state.types[i].shape[:-1]):
                raise Rejected("not a row vector")
        return self.state

    def is_ready(self, child: int) -> bool:
        return self.state.types[child] is not None or self.plan.nodes[child].op == "leaf"

    def asked_for(self, node: Node, asked: Set[str]) -> int:
        """How many undetermined attributes the equations, which speak of ``asked``, may still settle: such
        nodes wait.
        """
        unknown = {
            name for _, code in node.attrs for name in variables(code) if name not in self.state.values
        }
        computed = sum(
            self.known(code) is None and code[0] in ("prim", "shape", "dtype") for _, code in node.attrs
        )
        return len(unknown & asked) + computed

    def known(self, code: Code) -> Any:
        """The value of an attribute; None where it is not known. Raises Rejected where it has none."""
        try:
            return evaluate(code, self.state)
        except Unbound:
            return None
        except Undefined as error:
            raise Rejected(str(error)) from None

    def propagate(self) -> None:
        """Solve the equations for what they determine; check those that are known."""
        changed = True
        while changed:
            changed = False
            for pair in list(self.equations):
                if self.solve(*pair):
                    self.equations.remove(pair)
                    changed = True
            for test in list(self.tests):
                if self.known(test) is not None:
                    self.tests.remove(test)

    def solve(self, a: Code, b: Code) -> bool:
        """Whether an equation is done with; a known side gives the variables of the other their values."""
        x, y = self.known(a), self.known(b)
        if x is not None and y is not None:
            if not same(x, y):
                raise Rejected("an equation does not hold")
            return True
        for value, other in ((x, b), (y, a)):
            if value is None:
                continue
            try:
                if not bind(other, value, self.state):
                    raise Rejected("an equation does not hold")
                return True
            except Unbound:
                continue
            except Undefined as error:
                raise Rejected(str(error)) from None
        return False

    def tried(self, step: Callable[[], None], tries: int) -> None:
        """Take a step that leaves what is known true, in one of a few tries if chance has a say."""
        state, equations, tests = self.state.copy(), tuple(self.equations), tuple(self.tests)
        for left in reversed(range(tries)):
            drawn = self.context.rng.getstate()
            try:
                step()
                self.propagate()
                return
            except Rejected:
                if not left or self.context.rng.getstate() == drawn:
                    raise
            self.state, self.equations, self.tests = state.copy(), list(equations), list(tests)

    def number(self) -> None:
        """Choose the integers that stand in no tensor, such as places in the model."""
        while True:
            asked = {name for code in chain(self.tests, *self.equations) for name in variables(code)}
            free = sorted((asked & self.plan.integers) - self.state.values.keys())
            if not free:
                return
            self.state.values[free[0]] = self.context.rng.choice((*range(NUMBERS), *self.plan.extents))
            self.propagate()

    def fit(self, number: int, node: Node) -> None:
        """Choose what is open of a node's operands and attributes, and infer its type."""
        types = self.state.types
        for _, code in node.attrs:
            self.settle(code)
        operands = [types[child] for child in node.children]
        attrs = {name: self.plain(code) for name, code in node.attrs}
        codes = dict(node.attrs)
        for what in order(node.op, len(operands)) if node.op not in ("splat", "output") else codes:
            if isinstance(what, int):
                if operands[what] is None:
                    self.choose_leaf(what, node, operands, attrs)
            elif attrs[what] is None:
                attrs[what] = self.choose(what, codes[what], node, operands, attrs)
        types[number] = self.type_of(node)

    def settle(self, code: Code) -> None:
        """Type the leaves whose shape or dtype an attribute is computed from: the operands can follow."""
        if code[0] in ("shape", "dtype"):
            leaf = code[1]
            if self.state.types[leaf] is None and self.plan.nodes[leaf].op == "leaf":
                self.state.types[leaf] = self.leaf(leaf, self.any_type)
        for part in code[1:]:
            if isinstance(part, tuple) and part and isinstance(part[0], str):
                self.settle(part)

    def plain(self, code: Code) -> Any:
        value = self.known(code)
        return value.axes if hasattr(value, "axes") else value

    def choose_leaf(self, i: int, node: Node, operands: list[Any], attrs: dict[str, Any]) -> None:
        """Type the leaf that is operand ``i``, which may be other operands of the node, too."""
        leaf = node.children[i]
        try:
            chosen = self.leaf(leaf, lambda: choose_operand(node.op, i, operands, attrs, self.context))
        except (IndexError, ValueError) as error:  # the other operands do not fit the operator at all
            raise Rejected(str(error)) from None
        for j, child in enumerate(node.children):
            if child == leaf:
                operands[j] = chosen
        self.state.types[leaf] = chosen

    def any_type(self) -> TensorType:
        return TensorType(self.context.dtype, self.context.shape(self.context.rank))

    def leaf(self, leaf: int, propose: Callable[[], TensorType]) -> TensorType:
        """The first type proposed that the equations ask for; else the last one, bent to them."""
        wish = self.wish(("shape", leaf))
        for _ in range(PROPOSALS if wish else 1):
            chosen = propose()
            if wish.is_met(chosen.shape):
                break
        else:
            chosen = TensorType(chosen.dtype, wish.imposed_on(chosen.extents, self.context.extent))
        dtypes = [self.known(b) for pair in self.equations for a, b in _ways(pair) if a == ("dtype", leaf)]
        dtype = next((dtype for dtype in dtypes if dtype in DTYPES), chosen.dtype)
        return TensorType(dtype, row_vector(chosen.extents) if leaf in self.plan.rows else chosen.shape)

    def wish(self, subject: Code) -> Wish:
        return wish_for(subject, self.equations, self.known)

    def choose(self, name: str, code: Code, node: Node, operands: list[Any], attrs: dict[str, Any]) -> Any:
        """A value for an attribute, bound to the variables that stand for it."""
        if (settled := self.plain(code)) is not None:
            return (
                settled  # by the attribute before: the inverse of a permutation, a variable that stands twice
            )
        if node.op == "splat" and name == "value":
            value: Any = self.splat_value(attrs["dtype"], code)
        elif code[0] == "perm" and (axes := self.known(code[1])) is not None:
            value = Perm(axes, tuple(axes.index(i) if i in axes else -1 for i in range(len(axes))))
        elif node.op == "output":
            value = self.context.rng.randrange(2)
        else:
            wish = self.wish(code)
            for _ in range(PROPOSALS):
                value = self.attribute(name, node, operands, attrs)
                if not isinstance(value, tuple) or wish.is_met(value):
                    break
        try:
            if not bind(code, value, self.state):
                raise Rejected("an attribute does not fit")
        except (Unbound, Undefined) as error:
            raise Rejected(str(error)) from None
        return self.plain(code)

    def attribute(self, name: str, node: Node, operands: list[Any], attrs: dict[str, Any]) -> Any:
        """A value for an attribute that nothing determines. Raises Rejected where the operands admit none."""
        try:
            return choose_attribute(node.op, name, operands, attrs, self.context)
        except (IndexError, ValueError) as error:
            raise Rejected(str(error)) from None

    def splat_value(self, dtype: str, code: Code) -> float:
        if dtype == "bool":
            return float(self.context.rng.random() < 0.5)
        values: tuple[float, ...] = (0.0, 1.0, 2.0, 3.0, 5.0, 100.0)
        if not dtype.startswith("u"):
            values += (-1.0, -2.0)
        if dtype.startswith(("float", "bfloat")):
            values += (0.5, -0.25, 1.5)
        if self.plan.numbers and any(variables(code) & variables(test) for test in self.plan.tests):
            values = (*self.plan.numbers, *values)
        return self.context.rng.choice(values)

    def type_of(self, node: Node) -> Any:
        try:
            dtypes = [self.state.types[child].dtype for child in node.children if node.op != "output"]
            if not admits(node.op, attribute_values(node, self.state), dtypes):
                raise Rejected(f"{node.op} does not take {', '.join(dtypes)}")
            if node.op == "splat" and not is_held(attribute_values(node, self.state)):
                raise Rejected("no constant of the dtype has the value")
            return node_type(node, self.state)
        except (InferError, Undefined, Unbound) as error:
            raise Rejected(str(error)) from None


def _ways(pair: tuple[Code, Code]) -> tuple[tuple[Code, Code], tuple[Code, Code]]:
    return pair, (pair[1], pair[0])


def is_held(attrs: Mapping[str, Any]) -> bool:
    """Whether a dtype holds a scalar constant's value, floats rounded: a model has no others."""
    dtype, value = attrs["dtype"], attrs["value"]
    if dtype not in DTYPES or not isinstance(value, float):
        return False
    if dtype == "bool":
        return value in (0.0, 1.0)
    if is_float(dtype):
        with np.errstate(over="ignore"):
            return not math.isfinite(value) or bool(np.isfinite(np.asarray(value).astype(numpy_dtype(dtype))))
    if not is_integer(dtype) or not value.is_integer():
        return False
    info = np.iinfo(numpy_dtype(dtype))
    return int(info.min) <= value <= int(info.max)


def node_type(node: Node, state: State) -> Any:
    """The type of a node whose operands are typed, a tuple where it has several results.

    Raises InferError, Undefined and Unbound.
    """
    attrs = attribute_values(node, state)
    if node.op == "splat":
        try:
            return TensorType(attrs["dtype"], ())
        except ValueError as error:
            raise InferError(str(error)) from None
    if node.op == "output":
        results = state.types[node.children[0]]
        if not isinstance(results, tuple) or not 0 <= attrs["index"] < len(results):
            raise InferError(f"there is no result {attrs['index']}")
        return results[attrs["index"]]
    results = infer(node.op, tuple(state.types[child] for child in node.children), attrs)
    return results if len(results) > 1 else results[0]
