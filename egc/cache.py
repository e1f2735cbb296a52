"""Files that spare work from one run to the next, in `egc/` of `$XDG_CACHE_HOME` or of `~/.cache`.

The cache is a convenience: a folder that cannot be read or written is none at all. An entry is good for one
key, a hash of all that its content was made from, and holds a hash of its own content, so a damaged one is no
entry.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from egc.files import whole

_DIGEST = hashlib.sha256().digest_size


def key_of(*parts: bytes) -> bytes:
    """A hash of `parts` and of where each begins."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def folder(kind: str) -> Path:
    """Where entries of a kind are kept; a place that cannot exist where the user has no home."""
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(home) if home else Path("~/.cache").expanduser()) / "egc" / kind
    except RuntimeError:
        return Path(os.devnull) / "egc" / kind


def recall(path: Path, key: bytes) -> bytes | None:
    """What was remembered in `path` under `key`; None where nothing whole was."""
    with contextlib.suppress(OSError):
        data = path.read_bytes()
        content = data[len(key) + _DIGEST :]
        if data.startswith(key + hashlib.sha256(content).digest()):
            return content
    return None


def remember(path: Path, key: bytes, content: bytes) -> None:
    """Write a whole entry or none, whoever else writes it at the same time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with whole(path, sync=False) as file:  # an entry that the disk has lost a part of is no entry
            file.write(key + hashlib.sha256(content).digest() + content)
