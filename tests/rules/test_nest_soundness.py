"""Loop rules are tried out on nests of small kernels: what counts as wrong, and what is said of it.

The rule files are `unsound/nest-*.egg`, which test_soundness.py goes through, and `sound/nest-*.egg`.
"""

import random
import re
from pathlib import Path

import numpy as np
import pytest

from egc.ir.text import parse_kernel
from egc.resources import shipped_rules
from egc.rules.book import read_rules
from egc.rules.diagnostics import Diagnostic
from egc.schedule.cells import RULESET, Do
from egc.soundness.check import check_soundness
from egc.soundness.nest_cases import Case, case, cases
from egc.soundness.nest_kernels import KERNELS
from egc.soundness.nest_report import NESTS
from egc.soundness.nest_run import Broken, misfit, race, run
from egc.soundness.nest_terms import Both, Loop
from egc.soundness.nests import NestSearch, miscounted, unions
from egc.soundness.premises import find_definitions

GOLDEN = Path(__file__).parent / "golden"
SHIPPED = read_rules(shipped_rules())


def case_of(name: str, **extents: int) -> Case:
    """A kernel of these extents."""
    kernel = parse_kernel(KERNELS[name].format(**extents))
    return case(kernel, {}, random.Random(0), gpu=False)


def findings(path: Path) -> list[Diagnostic]:
    loaded = read_rules([*shipped_rules(), path])
    assert not loaded.errors, [str(e) for e in loaded.errors]
    return check_soundness([r for r in loaded.rules if r.span.source.name == str(path)], loaded)


def test_shipped_loop_rules_are_sound() -> None:
    rules = [rule for rule in SHIPPED.rules if rule.ruleset == RULESET]
    results = NestSearch(SHIPPED, rules, {}).run()
    assert {name: r.failure.why for name, r in results.items() if r.failure} == {}
    uniting = {rule.name for rule in rules if unions(rule)}
    assert {name: r.tried for name, r in results.items() if name in uniting and r.tried < 5} == {}


@pytest.mark.parametrize("rule", ["nest-remainder-dropped", "nest-vector-sum-exact", "nest-fact-parallel"])
def test_counterexamples_show_both_nests(rule: str, bless: bool) -> None:
    path = Path(__file__).parent / "unsound" / f"{rule}.egg"
    [finding] = findings(path)
    text = re.sub(r"(loops.egg):\d+", r"\1", str(finding).replace(f"{path.parent}/", "")) + "\n"
    golden = GOLDEN / f"{rule}.txt"
    if bless:
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8")


def test_sound_loop_rules_have_no_counterexample() -> None:
    """All in one search, and in two rounds of cases: what they make of each other is tried, too."""
    files = sorted((Path(__file__).parent / "sound").glob("nest-*.egg"))
    loaded = read_rules([*shipped_rules(), *files])
    assert not loaded.errors, [str(e) for e in loaded.errors]
    own = {str(path) for path in files}
    rules = [rule for rule in loaded.rules if rule.span.source.name in own]
    assert len(rules) >= len(files)
    definitions = find_definitions(loaded.environment, loaded.rules, NESTS, ("Nest",))
    results = NestSearch(loaded, rules, definitions, rounds=(0, 1)).run()
    assert {name: r.failure.why for name, r in results.items() if r.failure} == {}


def test_a_fact_alone_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "row.egg"
    path.write_text('(parallel "k0")\n', encoding="utf-8")
    [finding] = findings(path)
    assert "this row of `parallel` is unsound: by what it states, `loop-" in finding.message
    assert '  stated: (parallel "k0")' in finding.details


def test_kinds_of_loops_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "kinds.egg"
    path.write_text(';; class: exact\n(rewrite (Seq) (Par) :ruleset loops :name "kinds")\n', encoding="utf-8")
    [finding] = findings(path)
    assert "it makes different kinds of loops the same kind" in finding.message


def test_a_case_without_a_schedule_computes_what_the_kernel_means() -> None:
    for one in cases():
        nests = []
        for number, loops in enumerate(one.facts.stages):
            term: Do | Loop | Both = Do(number)
            for axis, extent in reversed(loops):
                term = Loop(axis, 1, extent, "whole", term)
            nests.append(term)
        whole = nests.pop()
        while nests:
            whole = Both(nests.pop(), whole)
        ran = run(whole, one)
        assert miscounted(ran, one) is None and misfit(whole, one) is None and race(whole, one) is None
        for name, value in ran.outputs.items():
            np.testing.assert_allclose(value, one.expected[name], rtol=1e-5, atol=1e-5)


def test_lanes_over_a_sum_keep_partial_results() -> None:
    """((x₀ + x₂) + x₄) + (x₁ + x₃), as float32 rounds it."""
    example = case_of("sum", a=3, k=5)
    term = Loop("i0", 1, 3, "seq", Loop("k0", 2, 5, "seq", Loop("k0", 1, 2, "vec", Do(0))))
    x = example.inputs["x"]
    expected = ((x[:, 0] + x[:, 2]) + x[:, 4]) + (x[:, 1] + x[:, 3])
    np.testing.assert_array_equal(run(term, example).outputs["y"], expected)


def test_what_lies_beyond_the_end_is_cut_off() -> None:
    example = case_of("map", a=5)
    assert (
        miscounted(run(Loop("i0", 4, 5, "seq", Loop("i0", 1, 4, "unroll", Do(0))), example), example) is None
    )


@pytest.mark.parametrize(
    ("loops", "why"),
    [
        ([(1, 4)], "the point i0 = 4 of stage s0 is never computed"),
        ([(4, 5), (1, 5)], "the point i0 = 4 of stage s0 is computed 2 times"),
        ([(3, 5), (2, 3), (1, 2)], "the point i0 = 3 of stage s0 is computed 2 times"),
    ],
)
def test_every_point_counts(loops: list[tuple[int, int]], why: str) -> None:
    example = case_of("map", a=5)
    term: Do | Loop = Do(0)
    for step, span in reversed(loops):
        term = Loop("i0", step, span, "seq", term)
    assert miscounted(run(term, example), example) == why


@pytest.mark.parametrize(
    ("kind", "allowed"), [("par", False), ("block", False), ("vec", True), ("thread", True)]
)
def test_iterations_of_a_sum_are_done_at_once_only_as_lanes(kind: str, allowed: bool) -> None:
    example = case_of("sum", a=2, k=3)
    term = Loop("i0", 1, 2, "seq", Loop("k0", 1, 3, kind, Do(0)))
    assert (race(term, example) is None) == allowed


def test_terms_that_cannot_run_say_why() -> None:
    example = case_of("map", a=3)
    with pytest.raises(Broken, match="steps of 0"):
        run(Loop("i0", 0, 3, "seq", Do(0)), example)
    with pytest.raises(Broken, match="no stage number 1"):
        run(Loop("i0", 1, 3, "seq", Do(1)), example)


def test_a_rule_that_matches_nowhere_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.egg"
    path.write_text(
        "(relation mine (String))\n"
        ";; class: exact\n"
        "(rewrite (For a 1 n (Whole) r) (For a 1 n (Seq) r)\n"
        '         :when ((mine a)) :ruleset loops :name "nowhere")\n',
        encoding="utf-8",
    )
    [finding] = findings(path)
    assert finding.warning and "`nowhere` could not be checked numerically" in finding.message
    assert finding.hint == "no rule or fact states `mine`"
