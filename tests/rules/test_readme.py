"""rules/README.md: every rule in it passes `egc rules check`, and what it quotes is what egc says."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from egc.cli import main
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


# ---- the whole way: a user's files and commands, in the order in which the guide has them ----

ROOT = data_folder("rules").parent
VARIES = (  # from machine to machine, and with other rules
    (r"\d+(\.\d+)?(?= (µs|ms|rows))|\d+(?= and \d+ rows)", "N"),
    (r"(?<=rules/graph\.egg:)\d+", "N"),
    (r"(?<=_)[0-9a-f]{10}\b", "HASH"),
    (r"u?int\d+(?=\[)", "int"),  # which of the integers a counterexample is found in
    (r"-\d{3,}", "LEAST"),
    (r"[█▏▎▍▌▋▊▉]+", "BAR"),
    (r"\s+", " "),
)


def normal(text: str) -> str:
    for pattern, replacement in VARIES:
        text = re.sub(pattern, replacement, text)
    return text.strip()


def journey() -> Iterator[tuple[str, str]]:
    """Files, as their names and contents, and commands behind a `$`, with what they print."""
    for name, content in re.findall(r"```(?:lisp|shell-session)(?: (\S+))?\n(.*?)```", TEXT, re.DOTALL):
        if name:
            yield name, content
        elif content.startswith("$ "):
            for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", content, re.MULTILINE):
                yield f"$ {command}", output


def run(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    program, *words = shlex.split(command)
    if program == "egc":
        main(words)
        said = capsys.readouterr()
        return said.out + said.err
    assert program == "python"
    return subprocess.run([sys.executable, ROOT / words[0], *words[1:]], check=True, text=True).stdout or ""


def test_the_whole_way_is_as_the_guide_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    commands = 0
    for name, content in journey():
        if not name.startswith("$ "):
            Path(name).write_text(content, encoding="utf-8")
            continue
        commands += 1
        expected = re.escape(normal(content)).replace("…", ".*")
        assert re.fullmatch(expected, found := normal(run(name[2:], capsys))), f"{name}\n{found}"
    assert commands > 8
