"""rules/README.md: every rule in it passes `egc rules check`, and what it quotes is what egc says."""

import re
from pathlib import Path

import pytest

from egc.resources import data_folder
from egc.rules.check import check
from egc.soundness.check import check_soundness

TEXT = (data_folder("rules") / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```egglog\n(.*?)```", TEXT, re.DOTALL)
QUOTED = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("index", range(len(SNIPPETS)))
def test_snippets_pass_check(index: int, tmp_path: Path) -> None:
    path = tmp_path / "snippet.egg"
    path.write_text(SNIPPETS[index], encoding="utf-8")
    report = check([path], further=(check_soundness,))
    assert [str(d) for d in report.findings] == []
    assert report.examples > 0


def without_lines_of_prelude(text: str) -> str:
    return re.sub(r"prelude\.egg:\d+", "prelude.egg", text)


def test_the_quoted_finding_is_what_check_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [quoted] = QUOTED
    line = re.search(r"2 \| (.*)", quoted)
    assert line is not None
    monkeypatch.chdir(tmp_path)
    Path("mine.egg").write_text(f";; class: exact\n{line[1]}\n", encoding="utf-8")
    [finding] = check([Path("mine.egg")]).findings
    assert without_lines_of_prelude(f"{finding}\n") == without_lines_of_prelude(quoted)


def test_the_quoted_counterexample_is_what_check_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [rule] = re.findall(r"```lisp\n(.*?)```", TEXT, re.DOTALL)
    [quoted] = re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("mine.egg").write_text(rule, encoding="utf-8")
    [finding] = check([Path("mine.egg")], further=(check_soundness,)).findings
    assert f"{finding}\n" == quoted


def test_every_rule_file_is_introduced() -> None:
    listed = set(re.findall(r"\]\((\w+\.egg)\)", TEXT))
    assert listed == {path.name for path in data_folder("rules").glob("*.egg")}
