"""Provenance: a fired rule leaves its match behind, in e-classes that stay up to date."""

from pathlib import Path
from typing import Any

import pytest
from egglog.bindings import EGraph

from egc.rules import RuleBook, load_rules
from egc.rules.provenance import columns, is_recorded, table

FOLDER = Path(__file__).parent / "accepted"
BOOK = load_rules([FOLDER / "vocabulary.egg", FOLDER / "rules.egg"], accuracy="fast")


def run(book: RuleBook, program: str, provenance: bool = True) -> EGraph:
    egraph = EGraph()
    egraph.run_program(*book.commands(provenance))
    egraph.run_program(*egraph.parse_program(program))
    return egraph


def matches(egraph: EGraph, name: str) -> list[dict[str, Any]]:
    rule = BOOK.rule(name)
    rows = egraph.freeze().functions[table(rule)].rows
    return [dict(zip((c for c, _ in columns(rule)), row.inputs, strict=True)) for row in rows]


def value(egraph: EGraph, text: str) -> Any:
    [command] = egraph.parse_program(f"(union {text} {text})")
    return egraph.eval_expr(command.action.lhs)[1]  # type: ignore[union-attr]


def test_a_match_names_what_was_matched_and_built() -> None:
    swish = '(Map2 (Mul) (Input "a") (Map1 (Sigmoid) (Input "a")))'
    egraph = run(BOOK, f"{swish} (run recognise 1)")
    [match] = matches(egraph, "silu")
    assert match["x"] == value(egraph, '(Input "a")')
    assert match["egc-root"] == value(egraph, swish) == value(egraph, '(Map1 (Silu) (Input "a"))')


def test_rows_survive_rebuilding() -> None:
    egraph = run(BOOK, '(Map2 (Mul) (Input "a") (Map1 (Sigmoid) (Input "a"))) (run recognise 1)')
    egraph.run_program(*egraph.parse_program('(union (Input "a") (Input "b")) (run recognise 1)'))
    [match] = matches(egraph, "silu")
    assert match["x"] == value(egraph, '(Input "b")')


def test_what_primitives_compute_is_recorded() -> None:
    program = '(Transpose (Transpose (Input "a") (vec-of 1 0 2)) (vec-of 2 1 0)) (run canonical 1)'
    egraph = run(BOOK, program)
    [match] = matches(egraph, "transpose-of-transpose")
    computed = [egraph.value_to_i64(v) for v in egraph.value_to_vec(match["egc-value-1"])]
    assert computed == [2, 0, 1]


def test_wildcards_are_recorded() -> None:
    egraph = run(BOOK, '(Map2 (Add) (Input "a") (Input "b")) (set (rank (Input "a")) 1) (run facts 1)')
    [match] = matches(egraph, "rank-of-map2")
    assert match["egc-any-2"] == value(egraph, '(Input "b")')


def test_rules_that_only_state_facts_are_not_recorded() -> None:
    recorded = [r.name for r in BOOK.rules if is_recorded(r)]
    assert "rank-of-transpose" not in recorded
    assert set(recorded) == {r.name for r in BOOK.rules} - {"rank-of-transpose"}


@pytest.mark.parametrize("provenance", [True, False])
def test_recording_changes_nothing_else(provenance: bool) -> None:
    program = (
        '(Map2 (Add) (Matmul (Input "a") (Input "b")) (Matmul (Input "a") (Map1 (Sigmoid) (Input "c"))))'
        "(run all 3)"
    )
    functions = run(BOOK, program, provenance).freeze().functions
    sizes = {name: len(f.rows) for name, f in functions.items() if not name.startswith("egc-prov.")}
    assert sizes == {name: len(f.rows) for name, f in run(BOOK, program, False).freeze().functions.items()}
    assert any(name.startswith("egc-prov.") for name in functions) is provenance
