"""Syntax trees of the shipped files, kept from one run to the next. Reading them costs 0.1 s, most of it to
import and build the parser; the trees come back in 0.02 s. An entry is good for one text and one version of
the reader.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from egc.cache import folder, key_of, recall, remember
from egc.rules import syntax as s
from egc.rules.diagnostics import Diagnostic

Read = tuple[s.RuleFile, list[Diagnostic]]

_MAKERS = ("egglog.lark", "builder.py", "cache.py", "commands.py", "parser.py", "reader.py", "syntax.py")


def cached(source: s.Source, read: Callable[[s.Source], Read]) -> Read:
    """What `read` makes of a source; remembered where it found nothing wrong."""
    path = folder("rules") / f"{hashlib.sha256(source.name.encode()).hexdigest()[:16]}.tree"
    key = key_of(_version(), source.name.encode(), source.text.encode())
    tree = recall(path, key)
    if tree is not None:
        file: s.RuleFile = pickle.loads(tree)
        return file, []
    file, errors = read(source)
    if not errors:
        remember(path, key, pickle.dumps(file, protocol=5))
    return file, errors


@lru_cache(maxsize=1)
def _version() -> bytes:
    """A hash of all that makes trees: entries of another reader are not read."""
    here = Path(__file__).parent
    digest = hashlib.sha256(repr(sys.version_info).encode())
    for name in _MAKERS:
        digest.update((here / name).read_bytes())
    return digest.digest()
