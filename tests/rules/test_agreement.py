"""The sort checker against egglog: on rules with one word changed, the two must agree on what is right."""

import random
import re
from pathlib import Path

import pytest
from egglog.bindings import EGraph

from egc.rules import syntax as s
from egc.rules.book import read_rules
from egc.rules.printer import show_command
from egc.rules.reader import parse

FOLDER = Path(__file__).parent / "accepted"
VOCABULARY = FOLDER / "vocabulary.egg"
WORD = re.compile(r"(?<=[ (])[A-Za-z$_][\w$-]*(?=[ )])")
OTHERS = ["x", "y", "e", "p", "n", "z", "_", "$one", "1", "1.0", '"s"', "(Add)", "(rank x)", "(vec-of 1 0)"]

# What egc refuses and egglog does not.
STRICTER = ("this premise always holds", "an action inserts", "this action computes", "unknown ruleset")


def changed_rules(count: int) -> list[str]:
    """Rules of rules.egg, each with one word outside its name and ruleset replaced."""
    rng = random.Random(20)
    forms = parse((FOLDER / "rules.egg").read_text(encoding="utf-8")).forms
    made = []
    while len(made) < count:
        text = show_command(rng.choice(forms).command, width=1000)
        body, options = text.split(" :ruleset ")
        words = list(WORD.finditer(body))
        word = rng.choice(words)
        new = rng.choice([*OTHERS, *(w[0] for w in words)])
        made.append(f"{body[: word.start()]}{new}{body[word.end() :]} :ruleset {options}")
    return made


def egglog_accepts(text: str) -> bool:
    egraph = EGraph()
    for form in parse(VOCABULARY.read_text(encoding="utf-8")).forms:
        egraph.run_program(*egraph.parse_program(show_command(form.command)))
    try:
        egraph.run_program(*egraph.parse_program(text))
    except Exception:
        return False
    return True


@pytest.mark.parametrize("text", sorted(set(changed_rules(150))))
def test_egglog_agrees(text: str, tmp_path: Path) -> None:
    path = tmp_path / "changed.egg"
    path.write_text(f";; class: exact\n{text}\n", encoding="utf-8")
    errors = [d.message for d in read_rules([VOCABULARY, path]).errors]
    if any(message.startswith(STRICTER) for message in errors):
        return
    assert egglog_accepts(text) is (errors == []), errors


def test_both_verdicts_occur(tmp_path: Path) -> None:
    verdicts = {egglog_accepts(text) for text in changed_rules(40)}
    assert verdicts == {True, False}
    assert isinstance(parse(changed_rules(1)[0]).forms[0].command, s.RewriteForm | s.RuleForm)
