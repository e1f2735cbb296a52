"""What a rule costs: matches on a small and a large graph, and a warning where it searches for nothing."""

from pathlib import Path

from egc.resources import shipped_rules
from egc.rules.book import read_rules
from egc.soundness.cost import Measured, idle, measure

EXAMPLES = Path(__file__).parents[2] / "examples" / "rules"
# Every pair of transposes is looked at, and none is what the rule asks for.
PAIRS = """
;; doc: Pairs of transposes of negative rank.
;; class: exact
(rule ((= a (Transpose x p)) (= b (Transpose y q)) (= s (shape a)) (= r (shape b))
       (< (+ (vec-length s) (vec-length r)) 0))
      ((union a b))
      :ruleset merge :name "pairs")
"""


def test_matches_grow_with_the_graph() -> None:
    loaded = read_rules(shipped_rules())
    rules = [rule for rule in loaded.rules if rule.name in ("softmax", "layer-norm", "conv2d-channels-last")]
    for small, large in measure(rules, loaded).values():
        assert 0 < small.matches < large.matches
        assert small.rows < large.rows


def test_a_rule_that_searches_long_for_nothing_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "pairs.egg"
    path.write_text(PAIRS, encoding="utf-8")
    loaded = read_rules([*shipped_rules(), path])
    [rule] = [rule for rule in loaded.rules if rule.name == "pairs"]
    measured = measure([rule], loaded)
    assert measured["pairs"][-1].matches == 0
    assert idle([rule], {"pairs": (Measured(1000, 0, 0.001),)}) == []
    [finding] = idle([rule], {"pairs": (Measured(1000, 0, 0.001), Measured(9000, 0, 0.5))})
    assert finding.warning
    assert "`pairs` matches nothing, and takes 500 ms to find that out" in str(finding)


def test_rules_of_other_e_graphs_are_not_measured() -> None:
    loaded = read_rules(shipped_rules())
    rules = [rule for rule in loaded.rules if rule.ruleset == "loops"]
    assert rules
    assert measure(rules, loaded) == {}
