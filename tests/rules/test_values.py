"""The checker of rules computes as egglog does: primitives, and what has no value."""

import pytest
from egglog.bindings import EGraph

from egc.soundness.values import Undefined, apply

INTEGERS = [
    ("+", 2, 3), ("-", 2, 5), ("*", -2, 3), ("/", -7, 2), ("/", 7, -2), ("%", -7, 2), ("%", 7, -3),
    ("^", 6, 3), ("&", 6, 3), ("|", 6, 3), ("<<", 3, 2), (">>", -8, 1), ("log2", 5), ("log2", 8), ("abs", -4),
    ("min", 2, -3), ("max", 2, -3), ("not-i64", 5), ("to-i64", -1.5), ("to-i64", 2.5),
]  # fmt: skip
FLOATS = [
    ("+", 2.5, 3.0), ("-", 2.0, 5.0), ("*", -2.0, 0.25), ("/", -7.0, 2.0), ("%", -7.5, 2.0), ("^", 2.0, 3.0),
    ("abs", -1.5), ("neg", 1.5), ("min", 2.0, -3.0), ("max", 2.0, -3.0), ("to-f64", 3),
]  # fmt: skip
UNDEFINED = [("/", 1, 0), ("%", 1, 0), ("+", 2**63 - 1, 1), ("*", 2**62, 2), ("/", 1.0, 0.0)]


def term(call: tuple[object, ...]) -> str:
    return f"({' '.join(map(str, call))})"


@pytest.mark.parametrize("call", INTEGERS, ids=term)
def test_integers(call: tuple[object, ...]) -> None:
    egraph = EGraph()
    assert apply(str(call[0]), call[1:]) == egraph.value_to_i64(evaluated(egraph, call))


@pytest.mark.parametrize("call", FLOATS, ids=term)
def test_floats(call: tuple[object, ...]) -> None:
    egraph = EGraph()
    assert apply(str(call[0]), call[1:]) == egraph.value_to_f64(evaluated(egraph, call))


@pytest.mark.parametrize("call", UNDEFINED, ids=term)
def test_what_has_no_value_in_egglog_has_none_here(call: tuple[object, ...]) -> None:
    with pytest.raises(Undefined):
        apply(str(call[0]), call[1:])
    egraph = EGraph()
    with pytest.raises(BaseException, match=r"."):
        evaluated(egraph, call)


def evaluated(egraph: EGraph, call: tuple[object, ...]) -> object:
    [command] = egraph.parse_program(f"(let $x {term(call)})")
    egraph.run_program(command)
    [expr] = [c.action.expr for c in egraph.parse_program(term(call))]
    return egraph.eval_expr(expr)[1]
