"""The table of primitives against egglog itself: each meaning that the table admits, egglog admits too."""

import pytest
from egglog.bindings import EGraph

from egc.rules.primitives import SIGNATURES, FunctionSort, Signature, VectorSort, signatures

DECLARATIONS = """
(datatype T (A) (F i64) (G T))
(sort IV (Vec i64)) (sort TV (Vec T)) (sort ToT (UnstableFn (i64) T)) (sort TT (UnstableFn (T) T))
"""
COMPOUND = (
    VectorSort("IV", "i64"),
    VectorSort("TV", "T"),
    FunctionSort("ToT", ("i64",), "T"),
    FunctionSort("TT", ("T",), "T"),
)
SORTS = ("i64", "f64", "String", "bool", "T", "IV", "TV")


def accepts(head: str, signature: Signature) -> bool:
    """Whether egglog finds these sorts right for a call."""
    used = dict.fromkeys((*signature.inputs, signature.output))
    relations = " ".join(f"(relation in-{sort} ({sort}))" for sort in used)
    names = [f"a{i}" for i in range(len(signature.inputs))]
    premises = " ".join(f"(in-{sort} {n})" for n, sort in zip(names, signature.inputs, strict=True))
    call = f"({' '.join((head, *names))})"
    rule = f"(rule ({premises} (= r {call})) ((in-{signature.output} r)))"
    egraph = EGraph()
    try:
        egraph.run_program(*egraph.parse_program(DECLARATIONS + relations + rule))
    except Exception:
        return False
    return True


@pytest.mark.parametrize("head", [h for h in SIGNATURES if h != "unstable-fn"])
def test_egglog_agrees(head: str) -> None:
    meanings = signatures(head, COMPOUND, SORTS)
    assert meanings
    for meaning in meanings:
        for count in (0, 1, 3) if meaning.variadic else (len(meaning.inputs),):
            signature = meaning.of_arity(count)
            assert signature is not None
            assert accepts(head, signature), signature


def test_the_check_can_fail() -> None:
    assert not accepts("vec-get", Signature(("IV", "i64"), "T"))
    assert not accepts("no-such-primitive", Signature(("i64",), "i64"))
