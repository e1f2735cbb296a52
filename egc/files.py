"""Writing files so that a reader, and whoever looks after a failure, finds all of a file or none of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole(path: Path, sync: bool = True) -> Iterator[BinaryIO]:
    """A file to write in, which takes the name `path` when the block ends; where the block or the disk fails,
    what had that name before keeps it and nothing is left behind.

    `sync` waits until the disk has it, so that not even a power cut leaves a file without its content.
    Raises OSError.
    """
    scratch, handle = _create(path)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(scratch, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise


def _create(path: Path) -> tuple[Path, int]:
    """A new file beside `path`, with the mode that the user's files have and a name of its own."""
    while True:
        scratch = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")
        with contextlib.suppress(FileExistsError):
            return scratch, os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
