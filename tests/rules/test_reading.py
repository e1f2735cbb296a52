"""Reading and printing: what is printed reads back as the same tree."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from egc.resources import shipped_rules
from egc.rules import syntax as s
from egc.rules.diagnostics import RuleFileError
from egc.rules.printer import show, show_command, show_file
from egc.rules.reader import parse, read

FOLDER = Path(__file__).parent
FILES = [*sorted((FOLDER / "accepted").glob("*.egg")), *shipped_rules()]
NOWHERE = s.Span(s.Source("<test>", "\n"), 0, 0)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
@pytest.mark.parametrize("width", [20, 100])
def test_files_round_trip(path: Path, width: int) -> None:
    file = parse(path.read_text(encoding="utf-8"))
    assert file.forms
    printed = show_file(file)
    assert parse(printed) == file
    assert show_file(parse(printed)) == printed
    for form in file.forms:
        assert parse(show_command(form.command, width)).forms[0].command == form.command


WORDS = st.sampled_from(["Add", "x", "-", "+", "vec-of", "1x", "$g", "<=", "a.b", "let", "rule", "set", "=>"])
FLOATS = st.floats(allow_nan=False) | st.sampled_from([math.inf, -math.inf, -0.0, 1e300, 1e-5, 2.0])
LITERALS = st.builds(
    s.Lit,
    st.integers(-(2**63), 2**63 - 1) | FLOATS | st.text() | st.booleans() | st.none(),
    st.just(NOWHERE),
)
EXPRESSIONS: st.SearchStrategy[s.Expr] = st.recursive(
    LITERALS | st.builds(s.Var, WORDS, st.just(NOWHERE)),
    lambda inner: st.builds(
        s.Call, WORDS, st.lists(inner, max_size=3).map(tuple), st.just(NOWHERE), st.just(NOWHERE)
    ),
    max_leaves=12,
)


@given(EXPRESSIONS)
def test_expressions_round_trip(expr: s.Expr) -> None:
    command = parse(f"(let $g {show(expr)})").forms[0].command
    assert isinstance(command, s.Let)
    assert command.value == expr


def test_where_a_node_stands_is_no_part_of_what_it_is() -> None:
    one, other, wrong = (parse(text).forms[0] for text in ("(F x 1)", "\n  (F  x 1)", "(F x 1.0)"))
    assert one.span.start != other.span.start
    assert (one == other, one != other, hash(one) == hash(other)) == (True, False, True)
    assert (one == wrong, one != wrong) == (False, True)


@given(st.text(alphabet='()" ;=>\\\n:abc1.-', max_size=60))
def test_any_text_is_read_or_refused_with_places(text: str) -> None:
    file, errors = read(s.Source("<any>", text))
    for error in errors:
        assert str(error).startswith("<any>:")
    for form in file.forms:
        assert form.span.text.startswith("(")


def test_spans_are_exact() -> None:
    text = ';; class: exact\n(rewrite (F x)\n  (G "a;b" -1.5e3)) ; behind\n'
    form = parse(text).forms[0]
    command = form.command
    assert isinstance(command, s.RewriteForm)
    assert isinstance(command.right, s.Call)
    assert [a.span.text for a in command.right.args] == ['"a;b"', "-1.5e3"]
    assert (command.right.span.line, command.right.span.column) == (3, 3)
    assert command.right.head_span.text == "G"
    assert [c.text for c in form.comments] == [";; class: exact"]


def test_literals_differ_by_kind() -> None:
    values = [1, 1.0, True, "1", None, 0.0, -0.0]
    assert len({s.Lit(v, NOWHERE) for v in values}) == len(values)


def test_all_forms_behind_an_error_are_read() -> None:
    file, errors = read(s.Source("f", "(rewrite (F x)\n(ruleset a)\n(sort\n)\n(ruleset b)\n)"))
    assert [str(f.command.name) for f in file.forms if isinstance(f.command, s.RulesetDecl)] == ["a", "b"]
    assert sorted((e.span.line, e.message) for e in errors) == [
        (1, "this bracket is never closed"),
        (4, "`)` is not expected here"),
        (6, "this bracket closes nothing"),
    ]
    with pytest.raises(RuleFileError) as caught:
        parse("(sort)")
    assert caught.value.exit_code == 2


def test_a_comment_belongs_to_the_form_below_it_only() -> None:
    text = "; alone\n\n(sort A) ; behind\n;; above\n(sort B)\n;; below\n"
    file = parse(text)
    assert [[c.text for c in f.comments] for f in file.forms] == [[], [";; above"]]
    assert [(i, [c.text for c in block]) for i, block in file.prose] == [
        (0, ["; alone"]),
        (1, ["; behind"]),
        (2, [";; below"]),
    ]
