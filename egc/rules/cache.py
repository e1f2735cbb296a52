"""Syntax trees of the shipped files, kept from one run to the next. Reading them costs 0.1 s, most of it to
import and build the parser; the trees come back in 0.02 s.

A file has one entry, in the user's cache folder. An entry is good for one text and one version of the reader:
it starts with a hash of both, and one of its own content. The cache is a convenience, so a folder that cannot
be read or written is none at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from egc.rules import syntax as s
from egc.rules.diagnostics import Diagnostic

Read = tuple[s.RuleFile, list[Diagnostic]]

_DIGEST = hashlib.sha256().digest_size
_MAKERS = ("egglog.lark", "builder.py", "cache.py", "commands.py", "parser.py", "reader.py", "syntax.py")


def cached(source: s.Source, read: Callable[[s.Source], Read]) -> Read:
    """What `read` makes of a source; remembered where it found nothing wrong."""
    path, key = _entry(source)
    with contextlib.suppress(OSError):
        data = path.read_bytes()
        tree = data[len(key) + _DIGEST :]
        if data.startswith(key + hashlib.sha256(tree).digest()):
            file: s.RuleFile = pickle.loads(tree)
            return file, []
    file, errors = read(source)
    if not errors:
        tree = pickle.dumps(file, protocol=5)
        _write(path, key + hashlib.sha256(tree).digest() + tree)
    return file, errors


def folder() -> Path:
    """Where the trees are kept: `egc/rules` in `$XDG_CACHE_HOME`, or in `~/.cache`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path("~/.cache").expanduser()) / "egc" / "rules"


def _entry(source: s.Source) -> tuple[Path, bytes]:
    """The entry's file, one for each name, and the hash that a good entry starts with."""
    name = hashlib.sha256(source.name.encode()).hexdigest()[:16]
    key = hashlib.sha256(b"\0".join((_version(), source.name.encode(), source.text.encode()))).digest()
    return folder() / f"{name}.tree", key


@lru_cache(maxsize=1)
def _version() -> bytes:
    """A hash of all that makes trees: entries of another reader are not read."""
    here = Path(__file__).parent
    digest = hashlib.sha256(repr(sys.version_info).encode())
    for name in _MAKERS:
        digest.update((here / name).read_bytes())
    return digest.digest()


def _write(path: Path, data: bytes) -> None:
    """Write a whole file or none, whoever else writes it at the same time."""
    scratch = path.with_suffix(f".{os.getpid()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch.write_bytes(data)
        scratch.replace(path)
