"""The shipped rules: readable, sort-correct, and accepted by egglog as they are."""

from egglog.bindings import EGraph

from egc.rules import load_rules
from egc.rules.check import check


def test_nothing_is_said_of_a_shipped_rule() -> None:
    """Whether they are sound is asked in test_soundness.py."""
    assert [str(d) for d in check().findings] == []


def test_egglog_takes_all_of_them() -> None:
    book = load_rules(accuracy="fast")
    assert book.rules
    egraph = EGraph()
    egraph.run_program(*book.commands())
    for ruleset in book.rulesets:
        egraph.run_program(*egraph.parse_program(f"(run {ruleset} 1)"))
