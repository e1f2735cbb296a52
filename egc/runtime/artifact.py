"""The `.egc` file: code, constants, manifest and the record that `explain` reads.

    header      magic, version, length of the file, and for each section its name, offset, length and SHA-256;
                then the SHA-256 of all this
    manifest    JSON                                     checksums  one uint64 per chunk of the constants
    record      JSON, compressed; read only when asked   code       on a page boundary, mapped executable
    constants   on a page boundary, mapped read-only

A file is believed only after its hashes agree: the header's, then each section's before it is used. The
constants, which may be many, are checked by compiled code (`Program.check_constants`). docs/artifact.md has
every field.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from msgspec import Struct

from egc.errors import ArtifactError, EgcError
from egc.files import opened, whole
from egc.runtime import abi
from egc.runtime.checksum import checksum
from egc.runtime.manifest import Manifest

MAGIC = b"\x89egc\r\n\x1a\n"  # like PNG's: a transfer as text damages it visibly
VERSION = 2  # 2: the manifest says which extents a run must find equal
SECTIONS = ("manifest", "checksums", "record", "code", "constants")
_HEADER = struct.Struct("<8sIIQ")
_SECTION = struct.Struct("<16sQQ32s")
HEADER_BYTES = _HEADER.size + len(SECTIONS) * _SECTION.size + 32
_MOST_RECORD = 256 << 20  # bytes of JSON; a network of 400 nodes has 2 MiB
_AGAIN = "compile the model again, or copy the file again"


def is_artifact(path: Path) -> bool:
    """Whether a path names an artifact and not a model: by its name, or else by its first bytes."""
    if path.suffix == ".egc":
        return True
    try:
        with opened(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


class WriteError(EgcError):
    """The artifact could not be written; nothing was left behind."""


class Section(Struct, frozen=True):
    """Where a section lies in the file, in bytes, and the SHA-256 of its content."""

    offset: int
    size: int
    digest: bytes


class Artifact(Struct, frozen=True):
    """An open artifact. `code` is mapped executable; `constants` is a read-only vector of uint8."""

    name: str
    manifest: Manifest
    code: mmap.mmap
    constants: np.ndarray
    checksums: np.ndarray
    _record: memoryview
    _record_digest: bytes

    def record(self) -> dict[str, Any]:
        """What the compiler noted for `explain`; ArtifactError where it is damaged."""
        packed = bytes(self._record)
        if hashlib.sha256(packed).digest() != self._record_digest:
            raise _damaged(self.name, "the record", "its SHA-256 does not match")
        try:
            record = json.loads(_inflated(packed)) if packed else {}
        except (zlib.error, ValueError, RecursionError) as error:
            raise _damaged(self.name, "the record", str(error)) from None
        if not isinstance(record, dict):
            raise _damaged(self.name, "the record", "it is no JSON object")
        return record


def _inflated(packed: bytes) -> bytes:
    """What zlib packed; ValueError where that is cut off, or more than any record is."""
    inflater = zlib.decompressobj()
    content = inflater.decompress(packed, _MOST_RECORD)
    if not inflater.eof:
        raise ValueError(f"it is cut off, or longer than {_MOST_RECORD >> 20} MiB")
    return content


def layout_constants(sizes: Iterable[int]) -> list[int]:
    """The offset of each constant, in bytes, when written in this order."""
    offsets, end = [], 0
    for size in sizes:
        offsets.append(end)
        end = -(-(end + size) // abi.ALIGNMENT) * abi.ALIGNMENT
    return offsets


def write_artifact(
    path: str | os.PathLike[str],
    manifest: Manifest,
    code: bytes,
    constants: Sequence[np.ndarray] = (),
    record: dict[str, Any] | None = None,
) -> None:
    """Write an artifact: all of it or nothing. `constants` lie as `layout_constants` says, row-major.

    WriteError where the file cannot be written; an older file of this name then stays as it was.
    """
    target = Path(path)
    try:
        with whole(target) as file:
            _write(file, manifest, code, constants, record)
    except OSError as error:
        raise WriteError(
            "cannot write the artifact",
            where=str(target),
            why=error.strerror or str(error),
            hint="write to a folder with enough free space that you may write to, with -o",
        ) from None


def artifact_in_memory(
    manifest: Manifest,
    code: bytes,
    constants: Sequence[np.ndarray] = (),
    record: dict[str, Any] | None = None,
) -> Artifact:
    """The artifact that `write_artifact` would write, in a file that has no name and vanishes with it."""
    with contextlib.ExitStack() as stack:
        if hasattr(os, "memfd_create"):
            file: Any = stack.enter_context(os.fdopen(os.memfd_create("egc"), "w+b"))
        else:
            file = stack.enter_context(tempfile.TemporaryFile())
        _write(file, manifest, code, constants, record)
        file.flush()
        return _open(file, manifest.model)


def _write(
    file: BinaryIO,
    manifest: Manifest,
    code: bytes,
    constants: Sequence[np.ndarray],
    record: dict[str, Any] | None,
) -> None:
    page = abi.PAGE_BYTES[manifest.target.architecture]
    packed = b"" if record is None else zlib.compress(_canonical(record), 6)
    sizes = [array.nbytes for array in constants]
    constants_size = sum(-(-size // abi.ALIGNMENT) * abi.ALIGNMENT for size in sizes)
    checksums = b"\0" * 8 * -(-constants_size // abi.CHUNK_BYTES)
    contents = {"manifest": manifest.to_json(), "checksums": checksums, "record": packed, "code": code}
    offsets, end = {}, HEADER_BYTES
    for name, content in contents.items():
        alignment = page if name == "code" else abi.ALIGNMENT
        offsets[name] = -(-end // alignment) * alignment
        end = offsets[name] + len(content)
    offsets["constants"] = -(-end // page) * page
    file.seek(offsets["constants"])
    contents["checksums"] = _write_constants(file, constants)
    file.truncate(offsets["constants"] + constants_size)
    for name, content in contents.items():
        file.seek(offsets[name])
        file.write(content)
    lengths = {name: len(content) for name, content in contents.items()} | {"constants": constants_size}
    header = _HEADER.pack(MAGIC, VERSION, len(SECTIONS), offsets["constants"] + constants_size)
    for name in SECTIONS:
        digest = hashlib.sha256(contents.get(name, b"")).digest()
        header += _SECTION.pack(name.encode(), offsets[name], lengths[name], digest)
    file.seek(0)
    file.write(header + hashlib.sha256(header).digest())


def _canonical(data: dict[str, Any]) -> bytes:
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _write_constants(file: BinaryIO, constants: Sequence[np.ndarray]) -> bytes:
    """Write the constants, each padded to the alignment, and return their checksums; buffers one chunk."""
    chunk = np.zeros(abi.CHUNK_BYTES, np.uint8)
    filled = 0
    sums: list[np.ndarray] = []
    for piece in _pieces(constants):
        while piece.size:
            part = piece[: abi.CHUNK_BYTES - filled]
            chunk[filled : filled + part.size] = part
            filled += part.size
            piece = piece[part.size :]
            if filled == abi.CHUNK_BYTES:
                file.write(chunk.data)
                sums.append(checksum(chunk))
                filled = 0
    if filled:
        file.write(chunk[:filled].data)
        sums.append(checksum(chunk[:filled]))
    return b"".join(part.tobytes() for part in sums)


def _pieces(constants: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    for array in constants:
        yield np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        yield np.zeros(-array.nbytes % abi.ALIGNMENT, np.uint8)


def open_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Open and check an artifact, but for its constants; ArtifactError says what is wrong with it."""
    name = os.fspath(path)
    try:
        with opened(path) as file:
            return _open(file, name)
    except OSError as error:
        raise ArtifactError(
            "cannot read the artifact", where=name, why=error.strerror or str(error), hint="check the path"
        ) from None


def _open(file: BinaryIO, name: str) -> Artifact:
    sections = _read_header(file, name)
    mapped = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    contents = {title: mapped[s.offset : s.offset + s.size] for title, s in sections.items()}
    for title in ("manifest", "checksums"):
        _check_digest(name, title, contents[title], sections)
    manifest = Manifest.from_json(bytes(contents["manifest"]))
    _check_offsets(name, manifest, sections)
    constants = np.frombuffer(contents["constants"], np.uint8)
    if len(contents["checksums"]) != 8 * -(-constants.size // abi.CHUNK_BYTES):
        raise _damaged(name, "the checksums", f"{len(contents['checksums'])} bytes for {constants.size}")
    code = _map_code(file, name, sections["code"])
    _check_digest(name, "code", memoryview(code), sections)
    checksums = np.frombuffer(contents["checksums"], np.uint64)
    return Artifact(name, manifest, code, constants, checksums, contents["record"], sections["record"].digest)


def _check_digest(name: str, title: str, content: memoryview, sections: dict[str, Section]) -> None:
    if hashlib.sha256(content).digest() != sections[title].digest:
        raise _damaged(name, f"the section {title}", "its SHA-256 does not match")


def _read_header(file: BinaryIO, name: str) -> dict[str, Section]:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    header = file.read(HEADER_BYTES)
    if header[: len(MAGIC)] != MAGIC:
        why = "the file is empty" if not header else "it does not begin as an .egc file does"
        raise ArtifactError(
            "this is no egc artifact", where=name, why=why, hint="make one with: egc optimize MODEL.onnx"
        )
    if len(header) < HEADER_BYTES:
        raise _damaged(name, "the header", f"the file ends after {size} bytes")
    _, version, count, length = _HEADER.unpack_from(header)
    if version != VERSION:
        raise ArtifactError(
            f"the artifact has format version {version}; this egc reads version {VERSION}",
            where=name,
            hint="compile the model again with this egc",
        )
    if hashlib.sha256(header[:-32]).digest() != header[-32:] or count != len(SECTIONS):
        raise _damaged(name, "the header", "its SHA-256 does not match")
    if length != size:
        raise _damaged(name, "the end of the file", f"the file has {size} bytes, and should have {length}")
    sections = {}
    for i, expected in enumerate(SECTIONS):
        title, offset, extent, digest = _SECTION.unpack_from(header, _HEADER.size + i * _SECTION.size)
        if title.rstrip(b"\0") != expected.encode() or offset + extent > size:
            raise _damaged(name, "the header", f"the section {expected} is not where it should be")
        sections[expected] = Section(offset, extent, digest)
    return sections


def _check_offsets(name: str, manifest: Manifest, sections: dict[str, Section]) -> None:
    """Everything that the manifest points to lies within the code and the constants."""
    for function, offset in manifest.functions.items():
        if not 0 <= offset < sections["code"].size:
            raise _damaged(name, "the manifest", f"the function {function} lies outside the code")
    for i, buffer in enumerate(manifest.buffers):
        if buffer.where == "constant" and not 0 <= (buffer.offset or 0) <= sections["constants"].size:
            raise _damaged(name, "the manifest", f"the constant buffer {i} lies outside the constants")


def _map_code(file: BinaryIO, name: str, section: Section) -> mmap.mmap:
    protection = mmap.PROT_READ | mmap.PROT_EXEC
    try:
        code = mmap.mmap(
            file.fileno(), section.size, flags=mmap.MAP_PRIVATE, prot=protection, offset=section.offset
        )
    except PermissionError:
        # The file lies on a file system mounted noexec: run the code from memory of our own.
        with os.fdopen(os.memfd_create("egc"), "w+b") as copy:
            file.seek(section.offset)
            copy.write(file.read(section.size))
            copy.flush()
            code = mmap.mmap(copy.fileno(), section.size, flags=mmap.MAP_PRIVATE, prot=protection)
    except ValueError:
        raise _damaged(name, "the code", "it is empty, or not on a page boundary of this machine") from None
    return code


def _damaged(name: str, where: str, why: str) -> ArtifactError:
    return ArtifactError("the artifact is damaged", where=f"{name}: {where}", why=why, hint=_AGAIN)
