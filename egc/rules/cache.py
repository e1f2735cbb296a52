"""What was read of the shipped files, kept from one run to the next.

Reading the trees of all files costs 0.1 s, most of it to import and build the parser, and checking their
rules 0.05 s; either comes back in 0.01 s. An entry is good for one text and one version of the reader.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from egc.cache import folder, key_of, recall, remember
from egc.rules import syntax as s
from egc.rules.diagnostics import Diagnostic

Read = tuple[s.RuleFile, list[Diagnostic]]

Kept = TypeVar("Kept")


def cached(source: s.Source, read: Callable[[s.Source], Read]) -> Read:
    """What `read` makes of a source; remembered where it found nothing wrong."""
    return kept("tree", (source,), lambda: read(source), lambda result: not result[1])


def kept(
    kind: str, sources: Sequence[s.Source], make: Callable[[], Kept], is_good: Callable[[Kept], bool]
) -> Kept:
    """What `make` makes of the sources, in an entry of its kind; remembered where it is good."""
    names = b"\0".join(source.name.encode() for source in sources)
    path = folder("rules") / f"{hashlib.sha256(names).hexdigest()[:16]}.{kind}"
    key = key_of(_version(), kind.encode(), names, *(source.text.encode() for source in sources))
    content = recall(path, key)
    if content is not None:
        result: Kept = pickle.loads(content)
        return result
    result = make()
    if is_good(result):
        remember(path, key, pickle.dumps(result, protocol=5))
    return result


@lru_cache(maxsize=1)
def _version() -> bytes:
    """A hash of all that reads and checks rules: what another version kept is not read."""
    here = Path(__file__).parent
    digest = hashlib.sha256(repr(sys.version_info).encode())
    for path in sorted((*here.glob("*.py"), *here.glob("*.lark"))):
        digest.update(path.read_bytes())
    return digest.digest()
