"""Reading plain files and nothing that merely has a name; writing files so that a reader, and whoever looks
after a failure, finds all of a file or none of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import numpy as np

MOST_TEXT = 16 << 20  # bytes of a file that people write: rules, a cost model

_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a pipe, and not a plain file"),
    (stat.S_ISSOCK, "it is a socket, and not a plain file"),
)


def opened(path: str | os.PathLike[str]) -> BinaryIO:
    """A plain file, open to be read. Raises OSError, also for all that is none: whoever opens a pipe waits
    for its writer, and a device may have no end.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError:  # a null character, or half of a surrogate pair
        raise OSError(errno.EINVAL, "no file can have this name", os.fspath(path)) from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise OSError(errno.EINVAL, _kind(mode), os.fspath(path))
    return os.fdopen(handle, "rb")


def refusal(path: str | os.PathLike[str]) -> str | None:
    """Why `path` is no plain file that can be read; None where it is one."""
    try:
        opened(path).close()
    except OSError as error:
        return error.strerror
    return None


def text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """What a plain text file says, whose lines end as Python's do. OSError, also where it is longer than
    `MOST_TEXT`; UnicodeDecodeError.
    """
    with opened(path) as file:
        data = file.read(MOST_TEXT + 1)
    if len(data) > MOST_TEXT:
        why = f"it is longer than {MOST_TEXT >> 20} MiB, which no such file is"
        raise OSError(errno.EFBIG, why, os.fspath(path))
    return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")


def mapped(path: str | os.PathLike[str]) -> np.ndarray:
    """The bytes of a plain file, mapped read-only. Raises OSError."""
    import numpy as np  # here: building egc reads files, too, where there is no numpy

    with opened(path) as file:
        if not os.fstat(file.fileno()).st_size:  # nothing can be mapped
            return np.zeros(0, np.uint8)
        return np.asarray(np.memmap(file, np.uint8, "r"))


def real(path: Path) -> Path:
    """Where the links on the way of `path` lead; a circle of them leads nowhere else."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # as `opened` says
        return path


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
    # A name has at most 255 bytes, and what is put around it here counts, too.
    name = os.fsencode(path.name)[:200].decode(errors="ignore")
    while True:
        scratch = path.with_name(f".{name}.{os.urandom(4).hex()}.part")
        with contextlib.suppress(FileExistsError):
            return scratch, os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)


def _kind(mode: int) -> str:
    """What a file that is no plain one is."""
    named = (text for is_one, text in _KINDS if is_one(mode))
    return next(named, "it is a device, and not a plain file")
