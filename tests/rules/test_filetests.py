"""Rejected rule files: each says in its header, word for word, what egc answers; `--bless` rewrites it."""

import re
from pathlib import Path

import pytest

from egc.rules.book import read_rules

FOLDER = Path(__file__).parent
VOCABULARY = FOLDER / "accepted" / "vocabulary.egg"
REJECTED = sorted((FOLDER / "rejected").glob("*.egg"))
HEADER = re.compile(r"\A(?:;;;.*\n)*")


def answer(path: Path) -> str:
    """What egc says of a file, with the file called by its name alone."""
    found = read_rules([VOCABULARY, path]).diagnostics
    text = "\n".join(str(d) for d in found)
    return text.replace(f"{path.parent}/", "").replace(f"{VOCABULARY.parent}/", "")


@pytest.mark.parametrize("path", REJECTED, ids=lambda p: p.stem)
def test_rejected(path: Path, bless: bool) -> None:
    text = path.read_text(encoding="utf-8")
    body = HEADER.sub("", text)
    if bless:
        # Lines move when the header grows, so it is written at its final length before the answer is taken.
        for _ in range(2):
            lines = answer(path).split("\n")
            header = "".join(f";;; {line}".rstrip() + "\n" for line in ("expect:", *lines))
            path.write_text(header + body, encoding="utf-8")
    expected = HEADER.match(path.read_text(encoding="utf-8"))
    assert expected is not None
    lines = ["expect:", *answer(path).split("\n")]
    assert expected[0].splitlines() == [f";;; {line}".rstrip() for line in lines]
    assert any(not d.warning for d in read_rules([VOCABULARY, path]).diagnostics)
