"""Numeric soundness: rules that are wrong, some only at a boundary, have a counterexample;
rules that are right have none.

`unsound/` holds a file for each way to be wrong, which its head explains;
`sound/` rules that look dangerous and are not; test_nest_soundness.py goes through those of loops.
"""

import re
from pathlib import Path

import pytest

from egc.resources import shipped_rules
from egc.rules.book import Loaded, read_rules
from egc.rules.diagnostics import Diagnostic
from egc.soundness.check import check_soundness, claims_something, knowledge_of
from egc.soundness.search import Searcher

FOLDER = Path(__file__).parent
SHIPPED = read_rules(shipped_rules())
EXPECTED = re.compile(r"^;;; expect: (.*)$", re.MULTILINE)


def findings(path: Path) -> list[Diagnostic]:
    loaded = read_rules([*shipped_rules(), path])
    assert not loaded.errors, [str(e) for e in loaded.errors]
    return check_soundness([r for r in loaded.rules if r.span.source.name == str(path)], loaded)


def files(folder: str) -> list[Path]:
    found = sorted((FOLDER / folder).glob("*.egg"))
    assert found
    return found


@pytest.mark.parametrize("path", files("unsound"), ids=lambda p: p.stem)
def test_unsound_rules_have_a_counterexample(path: Path) -> None:
    [finding] = findings(path)
    assert not finding.warning
    assert f"`{path.stem}` is unsound" in finding.message
    expected = EXPECTED.search(path.read_text(encoding="utf-8"))
    assert expected is not None
    assert expected[1] in str(finding)
    assert finding.details[0] == "counterexample:" and len(finding.details) > 1


@pytest.mark.parametrize(
    "path", [p for p in files("sound") if not p.stem.startswith("nest-")], ids=lambda p: p.stem
)
def test_sound_rules_have_none(path: Path) -> None:
    assert [str(d) for d in findings(path)] == []


def test_a_search_is_reproducible() -> None:
    path = FOLDER / "unsound" / "relu-max-empty.egg"
    assert str(findings(path)[0]) == str(findings(path)[0])


def rules_of(loaded: Loaded, file: str) -> list[str]:
    return sorted({r.name for r in loaded.rules if r.span.source.name == f"rules/{file}"})


@pytest.mark.parametrize("file", ["facts.egg", "graph.egg", "layout.egg"])
def test_shipped_rules_are_sound(file: str) -> None:
    rules = [r for r in SHIPPED.rules if r.span.source.name == f"rules/{file}"]
    assert rules
    assert [str(d) for d in check_soundness(rules, SHIPPED)] == []


@pytest.mark.parametrize(
    "name", ["softmax", "layer-norm", "conv2d-channels-last", "fold-scale-into-conv", "attention"]
)
def test_rules_are_instantiated_in_many_ways(name: str) -> None:
    knowledge = knowledge_of(SHIPPED)
    [rule] = [r for r in SHIPPED.rules if r.name == name]
    assert claims_something(rule, knowledge)
    result = Searcher(rule, knowledge).run()
    assert result.instances > 40
    assert len(result.dtypes) >= 4


def test_a_constructor_without_a_definition_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "mystery.egg"
    rule = '(rewrite (Map1 (Neg) (Mystery x)) (Mystery x) :ruleset canonical :name "mystery")'
    path.write_text(f"(constructor Mystery (T) T)\n;; class: exact\n{rule}\n", encoding="utf-8")
    undefined, unchecked = findings(path)
    assert "`Mystery` has no definition" in undefined.message and undefined.warning
    assert "`mystery` could not be checked numerically" in unchecked.message and unchecked.warning


def test_what_a_file_says_outside_its_rules_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "unions.egg"
    path.write_text(
        '(union (Map1 (Neg) (Splat "float32" 1.0)) (Splat "float32" -1.0))\n'
        '(union (Map1 (Abs) (Splat "float32" -1.0)) (Splat "float32" -1.0))\n',
        encoding="utf-8",
    )
    [finding] = findings(path)
    assert "`line 2` is unsound: the two sides differ" in finding.message
