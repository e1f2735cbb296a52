"""`egc rules`: list, check, new."""

import argparse
import json
from pathlib import Path

import pytest

from egc.cli import rules as cli
from egc.errors import UsageError
from egc.rules import load_rules

REJECTED = Path(__file__).parent / "rejected"


def egc(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    args = parser.parse_args(["rules", *arguments])
    code: int = args.main(args)
    return code


def test_list_tells_every_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert egc("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    rules = load_rules(accuracy="fast").rules
    assert [(r["name"], r["class"], r["line"]) for r in rows] == [
        (r.name, r.rule_class.value, r.span.line) for r in rules
    ]
    assert egc("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [r.name for r in rules]


def test_new_writes_a_file_that_passes_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert egc("new", "my-rule") == 0
    assert egc("check", "my-rule.egg") == 0
    assert "1 rule, 1 example: 0 errors, 0 warnings" in capsys.readouterr().out
    written = Path("my-rule.egg").read_text(encoding="utf-8")
    with pytest.raises(UsageError, match="exists already"):
        egc("new", "my-rule")
    with pytest.raises(UsageError, match="no name for a rule"):
        egc("new", "my rule")
    assert Path("my-rule.egg").read_text(encoding="utf-8") == written
    assert [p.name for p in tmp_path.iterdir()] == ["my-rule.egg"]


def test_check_fails_on_errors(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.egg"
    bad.write_text(';; class: exact\n(rewrite (Map1 (Exp) x) (Mapp1 (Exp) x) :ruleset canonical :name "b")\n')
    assert egc("check", str(bad)) == 1
    out = capsys.readouterr().out
    assert f"{bad}:2:26: error: unknown constructor `Mapp1`" in out
    assert egc("check", "--json", str(bad)) == 1
    [finding] = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["line"], finding["column"], finding["severity"]) == (2, 26, "error")
