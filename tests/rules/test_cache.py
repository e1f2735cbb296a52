"""The cache of syntax trees: it gives what reading gives, and never an old or damaged tree."""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import pytest

from egc.cache import folder as cache_folder
from egc.resources import loop_rules, shipped_rules
from egc.rules import book, cache, load_rules
from egc.rules import syntax as s
from egc.rules.book import _shipped, read_ahead, read_rules
from egc.rules.reader import read, read_file
from egc.rules.rule import Rule

TEXT = ";; class: exact\n(ruleset a)\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "rules_read_ahead", lambda: tmp_path / "ahead")
    return cache_folder("rules")


def readings(source: s.Source, times: int = 2) -> tuple[list[s.RuleFile], int]:
    """What the cache gives each time, and how often it had to read."""
    count = 0

    def counted(source: s.Source) -> cache.Read:
        nonlocal count
        count += 1
        return read(source)

    return [cache.cached(source, counted)[0] for _ in range(times)], count


def test_a_tree_is_read_once(folder: Path) -> None:
    files, count = readings(s.Source("f", TEXT))
    assert count == 1
    assert files[0] == files[1]
    assert [str(f.span) for f in files[1].forms] == ["f:2:1"]
    assert len(list(folder.iterdir())) == 1


def test_another_text_is_read_again(folder: Path) -> None:
    readings(s.Source("f", TEXT))
    files, count = readings(s.Source("f", TEXT.replace("a)", "b)")))
    assert count == 1
    assert "(ruleset b)" in files[1].forms[0].span.text
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("at", [0, 40, 80, -1])
def test_a_damaged_entry_is_read_again(folder: Path, at: int) -> None:
    readings(s.Source("f", TEXT))
    [entry] = folder.iterdir()
    data = bytearray(entry.read_bytes())
    data[at] ^= 1
    for damaged in (bytes(data), bytes(data)[:at]):
        entry.write_bytes(damaged)
        files, count = readings(s.Source("f", TEXT))
        assert count == 1
        assert files[0] == files[1]


def test_errors_are_not_remembered() -> None:
    assert readings(s.Source("f", "(ruleset)"), 3)[1] == 3


def test_no_folder_is_no_error(folder: Path) -> None:
    folder.parent.parent.mkdir(exist_ok=True)
    folder.parent.write_text("a file stands in the way")
    assert readings(s.Source("f", TEXT), 2)[1] == 2


def test_only_what_is_asked_for_is_remembered(tmp_path: Path, folder: Path) -> None:
    path = tmp_path / "f.egg"
    path.write_text(TEXT)
    read_file(path)
    assert not folder.exists()
    read_file(path, remember=True)
    assert folder.exists()


def told(rule: Rule) -> tuple[object, ...]:
    return rule.name, rule.location, rule.premises, rule.actions, rule.variables, rule.notes.math


def test_checked_rules_come_back_as_they_were() -> None:
    fresh = read_rules(shipped_rules())
    _shipped.cache_clear()
    first = _shipped(shipped_rules())
    _shipped.cache_clear()
    second = _shipped(shipped_rules())
    assert first is not second
    for loaded in (first, second):
        assert loaded.declarations == fresh.declarations
        assert [told(rule) for rule in loaded.rules] == [told(rule) for rule in fresh.rules]


def test_rules_read_ahead_are_read_no_more(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_ahead(tmp_path / "ahead")
    ahead = sorted(path.read_bytes() for path in (tmp_path / "ahead").iterdir())
    assert len(ahead) == 3
    for path in folder.iterdir():  # the trees, which reading left in the user's own cache
        path.unlink()
    fresh = read_rules(shipped_rules())
    _shipped.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(book, "read_rules", None)
        for paths in (shipped_rules(), loop_rules(), loop_rules(gpu=True)):
            assert load_rules(paths).rules
        assert [told(rule) for rule in _shipped(shipped_rules()).rules] == [
            told(rule) for rule in fresh.rules
        ]
    _shipped.cache_clear()
    monkeypatch.setattr(cache, "_version", lambda: b"another reader")
    read_ahead(tmp_path / "again")
    assert not {path.read_bytes() for path in (tmp_path / "again").iterdir()} & set(ahead)
    assert load_rules().rules  # read anew: no entry is good for this reader


def test_what_is_kept_names_no_class_but_those_of_egc(tmp_path: Path) -> None:
    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            assert module.startswith("egc."), f"{module}.{name} may differ from one Python to the next"
            return super().find_class(module, name)

    read_ahead(tmp_path / "ahead")
    for path in (tmp_path / "ahead").iterdir():
        start = 2 * hashlib.sha256().digest_size
        assert Reader(io.BytesIO(path.read_bytes()[start:])).load().rules


def test_a_file_alone_and_its_tree_are_two_entries() -> None:
    [loops] = [path for path in shipped_rules() if path.name == "loops.egg"]
    for _ in range(2):
        _shipped.cache_clear()
        assert _shipped((loops,)).rules
