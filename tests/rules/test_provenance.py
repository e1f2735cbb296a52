"""Provenance: a fired rule leaves its match behind, in e-classes that stay up to date."""

from pathlib import Path
from typing import Any

import pytest
from egglog.bindings import EGraph

from egc.rules import RuleBook, load_rules
from egc.rules.matches import State
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


def heads(egraph: EGraph, name: str) -> tuple[list[str], list[str]]:
    [match] = State(egraph).matches(BOOK.rule(name))
    return [n.head for n in match.matched], [n.head for n in match.built]


def test_a_match_leads_to_the_rows_it_found_and_made() -> None:
    egraph = run(BOOK, '(Map2 (Mul) (Input "a") (Map1 (Sigmoid) (Input "a"))) (run recognise 1)')
    assert heads(egraph, "silu") == (["Mul", "Sigmoid", "Map1", "Map2"], ["Silu", "Map1"])
    [match] = State(egraph).matches(BOOK.rule("silu"))
    product, silu = match.matched[-1], match.built[-1]
    assert product.args[1] == silu.args[1] == value(egraph, '(Input "a")')
    assert product.value == silu.value == match.bindings["egc-root"]


def test_rows_are_found_after_rebuilding() -> None:
    egraph = run(BOOK, '(Map2 (Mul) (Input "a") (Map1 (Sigmoid) (Input "a"))) (run recognise 1)')
    before = heads(egraph, "silu")
    egraph.run_program(*egraph.parse_program('(union (Input "a") (Input "b"))'))
    assert heads(egraph, "silu") == before


def test_rows_with_computed_arguments_are_found() -> None:
    egraph = run(BOOK, '(Transpose (Transpose (Input "a") (vec-of 1 0 2)) (vec-of 2 1 0)) (run canonical 1)')
    assert heads(egraph, "transpose-of-transpose") == (["Transpose", "Transpose"], ["Transpose"])


def test_facts_and_wildcards_are_found() -> None:
    egraph = run(BOOK, '(Map2 (Add) (Input "a") (Input "b")) (set (rank (Input "a")) 1) (run facts 1)')
    assert heads(egraph, "rank-of-map2") == (["Map2", "rank"], ["rank", "pointwise"])


def test_each_way_of_a_birewrite_has_matches_of_its_own() -> None:
    egraph = run(BOOK, '(Matmul (Input "a") (Map2 (Add) (Input "b") (Input "c"))) (run canonical 1)')
    state = State(egraph)
    assert list(state.matches(BOOK.rule("distribute"))) == []
    [match] = state.matches(BOOK.rule("distribute/back"))
    assert [n.head for n in match.built] == ["Add", "Matmul", "Matmul", "Map2"]
