"""Loading: which rules may fire, and what a rule book says."""

from pathlib import Path

import pytest

from egc.errors import BadInput, UsageError
from egc.rules import ACCURACIES, RuleClass, RuleFileError, load_rules
from egc.rules.bindings import egglog_bindings
from egc.rules.check import check
from egc.rules.printer import show
from egc.rules.rule import ROOT

FOLDER = Path(__file__).parent / "accepted"
FILES = [FOLDER / "vocabulary.egg", FOLDER / "rules.egg"]
ALL = [
    "silu",
    "transpose-of-transpose",
    "identity",
    "rank-of-transpose",
    "rank-of-map2",
    "distribute",
    "distribute/back",
    "sloppy",
]


def names(**options: object) -> list[str]:
    return [r.name for r in load_rules(FILES, **options).rules]  # type: ignore[arg-type]


def test_rules_come_in_file_order() -> None:
    book = load_rules(FILES, accuracy="fast")
    assert [r.name for r in book.rules] == ALL
    assert [r.name for r in book.in_ruleset("recognise")] == ["silu", "sloppy"]
    assert book.rulesets == ("facts", "canonical", "recognise", "all")
    assert [r.name for r in book.only(["facts"]).rules] == ["rank-of-transpose", "rank-of-map2"]


def test_a_rule_knows_what_its_comment_says() -> None:
    silu = load_rules(FILES).rule("silu")
    assert (silu.rule_class, silu.notes.math) == (RuleClass.EXACT, "silu(x) = x·σ(x)")
    assert silu.notes.source == 'Elfwing et al. 2018, "Sigmoid-weighted linear units", eq. 1'
    assert [n.text for n in silu.notes.examples] == ["(Map2 (Mul) x (Map1 (Sigmoid) x)) => (Map1 (Silu) x)"]
    assert silu.location.endswith("rules.egg:7")
    assert silu.variables == ((ROOT, "T"), ("x", "T"))


def test_accuracies_admit_ever_more() -> None:
    exact, default, fast = (names(accuracy=a) for a in ACCURACIES)
    assert fast == ALL
    assert set(fast) - set(default) == {"sloppy"}
    assert set(default) - set(exact) == {"distribute", "distribute/back"}
    left_out = load_rules(FILES, accuracy="exact").left_out
    assert left_out["sloppy"] == "approximate, which --accuracy exact does not admit"
    with pytest.raises(UsageError, match="unknown accuracy"):
        load_rules(FILES, accuracy="sloppy")


def test_disabling() -> None:
    assert set(ALL) - set(names(accuracy="fast", disabled=["distribute", "silu"])) == {
        "distribute",
        "distribute/back",
        "silu",
    }
    assert set(ALL) - set(names(accuracy="fast", disabled=["distribute/back"])) == {"distribute/back"}
    with pytest.raises(UsageError) as caught:
        load_rules(FILES, disabled=["silo", "nothing-like-it"])
    assert [p.what for p in caught.value.problems] == [
        "there is no rule `nothing-like-it`",
        "there is no rule `silo`",
    ]
    assert caught.value.problems[1].hint == "did you mean `silu`?"


def test_a_users_file_stands_on_the_others(tmp_path: Path) -> None:
    mine = tmp_path / "mine.egg"
    mine.write_text(
        ";; class: exact\n(constructor Twice (T) T)\n"
        ';; class: exact\n(rewrite (Map2 (Add) x x) (Twice x) :ruleset canonical :name "twice")\n'
    )
    book = load_rules(FILES, extra=[mine])
    assert book.rules[-1].name == "twice"
    assert book.rule("twice").location == f"{mine}:4"


def test_errors_of_all_files_come_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.egg").write_text(f"(sort {name})\n(rewrite (Nope) (Nope))\n(sort {name})\n")
    with pytest.raises(RuleFileError) as caught:
        load_rules(FILES, extra=[tmp_path / "a.egg", tmp_path / "b.egg"])
    places = [(Path(d.span.source.name).name, d.span.line) for d in caught.value.diagnostics]
    assert places == sorted(places)
    assert {p[0] for p in places} == {"a.egg", "b.egg"}
    assert str(caught.value).startswith(f"{len(places)} errors in rule files\n")


def test_files_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "bytes.egg").write_bytes(b"\xff\xfe(sort A)")
    for name in ("bytes.egg", "absent.egg"):
        with pytest.raises(BadInput, match="cannot read a rule file"):
            load_rules(FILES, extra=[tmp_path / name])


LIVE = """
(sort T)
(constructor A (T) T)
(constructor B (T) T)
(constructor C (T) T)
(constructor Leaf (i64) T)
(relation given (i64))
(given 3)
(ruleset r)
;; math: a = b
;; class: exact
;; example: (A x) => (B x)
(rewrite (A x) (B x) :ruleset r :name "a-to-b")
;; math: b = c
;; class: exact
;; example: (B x) => (C x)
(rewrite (B x) (C x) :ruleset r :name "b-to-c")
;; math: leaf(3) = b(leaf(3))
;; class: exact
;; example: (Leaf 3) => (B (Leaf 3))
(rule ((given n) (= e (Leaf n))) ((union e (B (Leaf n)))) :ruleset r :name "leaf")
"""


@pytest.mark.parametrize(
    ("tables", "alive"),
    [
        ((), []),
        (("C",), []),
        (("B",), ["b-to-c"]),
        (("A",), ["a-to-b", "b-to-c"]),
        (("Leaf",), ["b-to-c", "leaf"]),  # what a declaration states counts, too
    ],
)
def test_only_rules_whose_premises_can_get_rows_are_alive(
    tmp_path: Path, tables: tuple[str, ...], alive: list[str]
) -> None:
    file = tmp_path / "live.egg"
    file.write_text(LIVE)
    assert [rule.name for rule in load_rules([file]).live(tables).rules] == alive


def test_a_mark_of_utf_8_in_front_of_a_file_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "marked.egg"
    path.write_bytes(b"\xef\xbb\xbf" + (FOLDER / "vocabulary.egg").read_bytes())
    assert load_rules([path, FILES[1]], accuracy="fast").rules


def test_a_global_does_not_disturb_the_variables_of_other_files(tmp_path: Path) -> None:
    path = tmp_path / "more.egg"
    path.write_text(
        '(let $x (Splat "float32" 2.0))\n'
        ";; class: exact\n"
        '(rewrite (Map2 (Mul) y $x) (Map2 (Add) y y) :ruleset canonical :name "twice")\n'
    )
    book = load_rules([*FILES, path], accuracy="fast")
    egraph = egglog_bindings().EGraph()
    egraph.run_program(*book.commands())
    assert show(book.rule("twice").left) == '(Map2 (Mul) y (Splat "float32" 2.0))'


def test_a_table_may_not_be_called_like_a_variable_of_an_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "more.egg"
    path.write_text("(relation x (T))\n")
    [finding] = check([path], base=FILES).findings
    assert finding.message == "`x` is taken"
    assert finding.span.source.name == str(path)
