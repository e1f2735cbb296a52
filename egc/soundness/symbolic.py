"""Matches at symbolic extents: what the compiler knows of them, and what they turn out to be.

A premise speaks of what is known when compiling. There a symbolic extent `n` is neither `(I 1)` nor `m`, but
when the model runs it may be 1, or 0, or what `m` is. A rule that rests on such a difference is true of known
extents only. So an instance at known extents is taken for one at symbolic ones, where the premises still
allow it, and then for every extent that the symbols may stand for and that the premises would have refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from egc.ir.dims import Dim, SymDim, symbol
from egc.ir.dims import evaluate as extent_of
from egc.ir.infer import InferError
from egc.ir.ops import OPS
from egc.ir.types import TensorType
from egc.soundness.plan import Node, Plan, State, Unbound, bind, evaluate
from egc.soundness.sample import node_type
from egc.soundness.values import Rejected, Undefined, same

SYMBOL = "n"
EXTENTS = (0, 1, 2)  # that a symbol may stand for, besides those that occur already


def run_time_states(plan: Plan, state: State) -> Iterator[State]:
    """What the match at `state` may be when the model runs, where one of its extents is symbolic when
    compiling: states at which the premises do not hold. Empty for a rule that asks nothing of shapes.
    """
    if not (plan.tests or plan.equations):
        return
    types = [state.types[i] for i in range(plan.left)]
    extents = sorted({d for t in types if isinstance(t, TensorType) for d in t.extents})
    for extent in extents:
        compiling = symbolic(plan, state, extent)
        if compiling is None:
            continue
        for actual in sorted({*EXTENTS, *extents} - {extent}):
            running = at_extent(plan, compiling, actual)
            if running is not None and not holds(plan, running):
                yield running


def symbolic(plan: Plan, state: State, extent: int) -> State | None:
    """The match with a symbol for every `extent`; None where it is then no match."""
    found = State(len(plan.nodes))
    try:
        for i, node in enumerate(plan.nodes[: plan.left]):
            if node.op != "leaf":
                bind_attributes(node, state, found, extent)
                found.types[i] = node_type(node, found)
            elif isinstance(state.types[i], TensorType):
                type_ = state.types[i]
                found.types[i] = TensorType(type_.dtype, _lifted(type_.shape, extent))
            else:
                return None
        solve(plan, found)
    except (InferError, Unbound, Undefined, Rejected):
        return None
    for name, value in state.values.items():
        found.values.setdefault(name, value)
    rows = all(d == 1 for i in plan.rows for d in found.types[i].shape[:-1])
    return found if rows and holds(plan, found) else None


def bind_attributes(node: Node, state: State, found: State, extent: int) -> None:
    """Give a node in `found` the attributes that it has in `state`, with the symbol for the extent. Raises
    Rejected.
    """
    kinds: Mapping[str, str] = dict(OPS[node.op].attrs) if node.op in OPS else {}
    for name, code in node.attrs:
        value = evaluate(code, state)
        if kinds.get(name) == "dims":
            value = _lifted(value, extent)
        if not bind(code, value, found):
            raise Rejected("it asks for a known extent")


def solve(plan: Plan, state: State) -> None:
    """Bind what the equations say of variables that stand in no term. Raises Rejected."""
    waiting = list(plan.equations)
    while waiting:
        left = []
        for a, b in waiting:
            for known, other in ((a, b), (b, a)):
                try:
                    if not bind(other, evaluate(known, state), state):
                        raise Rejected("an equation does not hold")
                    break
                except Unbound:
                    continue
            else:
                left.append((a, b))
        if len(left) == len(waiting):
            return
        waiting = left


def at_extent(plan: Plan, compiling: State, actual: int) -> State | None:
    """The match when the symbol stands for `actual`; None where the left side then has another type."""
    found = State(len(plan.nodes))
    found.compiling, found.unknown = compiling, {SYMBOL: actual}
    found.values = {name: _settled(value, actual) for name, value in compiling.values.items()}
    try:
        for i, node in enumerate(plan.nodes[: plan.left]):
            expected = _settled(compiling.types[i], actual)
            found.types[i] = expected if node.op == "leaf" else node_type(node, found)
            if found.types[i] != expected:
                return None
    except (InferError, Unbound, Undefined):
        return None
    return found


def holds(plan: Plan, state: State) -> bool:
    """Whether the premises hold of a state in which all is known that they speak of."""
    try:
        if not all(same(evaluate(a, state), evaluate(b, state)) for a, b in plan.equations):
            return False
        for test in plan.tests:
            evaluate(test, state)
    except (Unbound, Undefined):
        return False
    return True


def _lifted(shape: tuple[Dim, ...], extent: int) -> tuple[Dim, ...]:
    return tuple(symbol(SYMBOL) if d == extent else d for d in shape)


def _settled(value: Any, actual: int) -> Any:
    """A value with the symbol replaced by its extent."""
    if isinstance(value, SymDim):
        return extent_of(value, {SYMBOL: actual})
    if isinstance(value, TensorType):
        return TensorType(value.dtype, _settled(value.shape, actual))
    if isinstance(value, tuple):
        return tuple(_settled(part, actual) for part in value)
    return value
