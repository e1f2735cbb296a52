"""What a rule claims of its match besides a union: facts of tensors, and equal attributes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from egc.soundness.compare import reachable
from egc.soundness.plan import Claim, Plan, State, evaluate
from egc.soundness.premises import CONSTANT, FUSION, ROW_VECTOR, VARIES
from egc.soundness.values import Rejected, same


def refuted(claim: Claim, plan: Plan, state: State) -> str:
    """Why a claim that is no union does not hold of an instance; nothing where it does.

    Raises Unbound, Undefined, and Rejected where the instance contradicts itself.
    """
    match claim.kind:
        case "built":
            return ""  # it has been typed by now
        case "equal":
            a, b = (evaluate(code, state) for code in claim.about)
            return "" if same(a, b) else f"{a} is not {b}"
        case kind if kind == CONSTANT:
            loose = sorted(plan.nodes[i].label for i in _loose(plan, claim.about))
            return f"it depends on {', '.join(loose)}, which may be an input" if loose else ""
        case kind if kind == VARIES:
            return _not_varying(claim.about[0], plan)
        case kind if kind == ROW_VECTOR:
            shape = state.type(claim.about[0]).shape
            return f"its shape is {list(shape)}" if any(d != 1 for d in shape[:-1]) else ""
        case kind if kind == FUSION:
            producer, consumer = claim.about
            reads = producer in plan.nodes[consumer].children
            return "" if reads else "the second does not read the first"
    stated, true = evaluate(claim.about[1], state), getattr(state.type(claim.about[0]), claim.kind)
    return "" if stated == true else f"it states the {claim.kind} {shown(stated)}, but it is {shown(true)}"


def _loose(plan: Plan, nodes: Iterable[int]) -> set[int]:
    """The leaves that some nodes depend on and of which nothing says that they are constant."""
    constant = {j for i in plan.constants for j in reachable(plan, [i])}
    return {
        i
        for i in reachable(plan, nodes) - constant
        if plan.nodes[i].op == "leaf" and not plan.nodes[i].label.startswith("(Const")
    }


def _not_varying(node: int, plan: Plan) -> str:
    """Why a tensor may be constant: it depends on no input, nor on all that something varying depends on."""
    loose = _loose(plan, [node])
    if any(plan.nodes[i].label.startswith("(Input") for i in loose):
        return ""
    for other in plan.varying:
        sources = _loose(plan, [other])
        if not sources:
            raise Rejected("what varies is computed from constants")
        if sources <= loose:
            return ""
    named = ", ".join(sorted(plan.nodes[i].label for i in loose))
    return f"{named} may be constant" if named else "it is computed from constants"


def shown(value: Any) -> str:
    """A shape, or a dtype."""
    return str(list(value)) if isinstance(value, tuple) else str(value)
