"""Filetests: a rule file's header says, word for word, what `egc rules check` answers; `--bless` rewrites it.

`rejected/` holds files that cannot be used, `linted/` files with findings of lint and examples, `accepted/`
files of which nothing is said. All of them stand on `accepted/vocabulary.egg`.
"""

import re
from pathlib import Path

import pytest

from egc.rules.check import check
from egc.rules.diagnostics import Diagnostic

FOLDER = Path(__file__).parent
VOCABULARY = FOLDER / "accepted" / "vocabulary.egg"
HEADER = re.compile(r"\A(?:;;;.*\n)*")
MARK = ";;; expect:"


def files(folder: str) -> list[Path]:
    found = sorted((FOLDER / folder).glob("*.egg"))
    assert found
    return found


def findings(path: Path) -> tuple[Diagnostic, ...]:
    return check([path], base=[VOCABULARY]).findings


def header(path: Path) -> str:
    """The header that a file should have: what egc says of it, with files called by their names alone."""
    text = "\n".join(str(d) for d in findings(path))
    text = text.replace(f"{path.parent}/", "").replace(f"{VOCABULARY.parent}/", "")
    return "".join(f";;; {line}".rstrip() + "\n" for line in ("expect:", *text.split("\n")))


@pytest.mark.parametrize(
    "path", files("rejected") + files("linted"), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_expected(path: Path, bless: bool) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith(MARK)
    if bless:
        # Lines move when the header grows, so it is written twice: the second time at its final length.
        for _ in range(2):
            path.write_text(header(path) + HEADER.sub("", text), encoding="utf-8")
    expected = HEADER.match(path.read_text(encoding="utf-8"))
    assert expected is not None
    assert header(path) == expected[0]


@pytest.mark.parametrize("path", files("rejected"), ids=lambda p: p.stem)
def test_rejected_files_have_errors(path: Path) -> None:
    assert any(not d.warning for d in findings(path))


@pytest.mark.parametrize("path", files("accepted"), ids=lambda p: p.stem)
def test_accepted_files_have_no_findings(path: Path) -> None:
    assert [str(d) for d in findings(path)] == []
