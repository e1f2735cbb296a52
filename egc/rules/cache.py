"""What was read of the shipped files, kept from one run to the next.

Reading the trees of all files costs 0.1 s, most of it to import and build the parser, and checking their
rules 0.05 s; either comes back in 0.01 s. An entry is good for one text and one version of the reader, but
for every version of Python, since it names no classes but egc's. Installing egc makes the first entries,
within the package (hatch_build.py); later ones are the user's own.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from egc.cache import folder, key_of, recall, remember
from egc.resources import rules_read_ahead
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
    name, key = _entry(kind, sources)
    for place in (rules_read_ahead(), folder("rules")):
        content = recall(place / name, key)
        if content is not None:
            result: Kept = pickle.loads(content)
            return result
    result = make()
    if is_good(result):
        keep(folder("rules"), kind, sources, result)
    return result


def keep(place: Path, kind: str, sources: Sequence[s.Source], made: object) -> None:
    """Write what was made of the sources into its entry in the folder `place`, if that can be written."""
    name, key = _entry(kind, sources)
    remember(place / name, key, pickle.dumps(made, protocol=5))


def _entry(kind: str, sources: Sequence[s.Source]) -> tuple[str, bytes]:
    """The name of an entry's file, and what it must be good for."""
    names = b"\0".join(source.name.encode() for source in sources)
    key = key_of(_version(), kind.encode(), names, *(source.text.encode() for source in sources))
    return f"{hashlib.sha256(names).hexdigest()[:16]}.{kind}", key


@lru_cache(maxsize=1)
def _version() -> bytes:
    """A hash of all that reads and checks rules: what another version kept is not read."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted((*here.glob("*.py"), *here.glob("*.lark"))):
        digest.update(path.read_bytes())
    return digest.digest()
