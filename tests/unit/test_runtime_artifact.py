"""The artifact file: what is written is read, and every kind of damage is found before anything runs."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from egc.errors import ArtifactError, EgcError
from egc.runtime import abi
from egc.runtime.artifact import HEADER_BYTES, open_artifact, write_artifact
from egc.runtime.checksum import checksum
from egc.runtime.manifest import Manifest
from egc.runtime.native import NativeCode, address_of
from egc.runtime.session import Session
from tests.support.artifacts import chain, chain_parts

X = np.arange(10, dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "model.egc"
    write_artifact(target, *chain_parts(3), {"note": ["a", 1, None]})
    return target


def test_round_trip(path: Path) -> None:
    artifact = open_artifact(path)
    manifest, code, constants = chain_parts(3)
    assert artifact.manifest == manifest
    assert bytes(artifact.code) == code
    assert artifact.record() == {"note": ["a", 1, None]}
    assert artifact.constants[:4000].tobytes() == constants[0].tobytes()
    with Session(path) as session:
        np.testing.assert_array_equal(session.run(None, {"x": X})[0], X + 3)


def test_equal_content_gives_equal_files(path: Path, tmp_path: Path) -> None:
    write_artifact(tmp_path / "again.egc", *chain_parts(3), {"note": ["a", 1, None]})
    assert (tmp_path / "again.egc").read_bytes() == path.read_bytes()


def test_manifest_round_trip() -> None:
    manifest, _, _ = chain_parts(4, ("batch", 7))
    assert Manifest.from_json(manifest.to_json()) == manifest


def use(path: Path) -> np.ndarray:
    """Everything that a damaged file could disturb."""
    artifact = open_artifact(path)
    artifact.record()
    with Session(artifact) as session:
        return session.run(None, {"x": X})[0]


def positions(size: int) -> list[int]:
    """Every byte of the header and the places around each section's ends, and a sample of the rest."""
    sample = np.random.default_rng(1).integers(0, size, 150).tolist()
    return sorted({*range(0, HEADER_BYTES, 3), *sample, size - 1, size - 100})


def test_no_flipped_bit_gets_through(path: Path) -> None:
    good = path.read_bytes()
    found = 0
    for position in positions(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << (position % 8)
        path.write_bytes(bad)
        try:
            np.testing.assert_array_equal(use(path), X + 3)
        except ArtifactError as error:
            found += 1
            assert error.exit_code == 2 and error.where
        else:
            # Only the padding between two sections may change unnoticed.
            assert good[position] == 0 and not any(good[max(0, position - 8) : position + 8])
    assert found > 150


def test_every_flip_in_the_constants_is_found(path: Path) -> None:
    size = path.stat().st_size
    good = path.read_bytes()
    for position in range(size - 4032, size, 61):
        bad = bytearray(good)
        bad[position] ^= 0x80
        path.write_bytes(bad)
        with pytest.raises(ArtifactError, match="the constants"):
            use(path)


def test_truncated_and_extended_files_are_refused(path: Path) -> None:
    good = path.read_bytes()
    for size in [*range(0, HEADER_BYTES, 7), *range(HEADER_BYTES, len(good), 401)]:
        path.write_bytes(good[:size])
        with pytest.raises(ArtifactError):
            use(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(ArtifactError, match=r"has \d+ bytes, and should have"):
        use(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x08\x07\x12\x04onnx" * 100])
def test_foreign_files_are_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="this is no egc artifact"):
        open_artifact(path)


def test_other_versions_are_named(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[8] = 99
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match="format version 99; this egc reads version 2"):
        open_artifact(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="No such file"):
        open_artifact(tmp_path / "none.egc")
    with pytest.raises(ArtifactError, match="it is a folder"):
        open_artifact(tmp_path)


def test_a_failed_write_leaves_the_old_file_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EgcError, match="No space left on device") as caught:
        write_artifact(path, *chain_parts(5))
    assert caught.value.exit_code == 1
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_writing_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(EgcError, match="cannot write the artifact"):
        write_artifact(tmp_path / "no" / "model.egc", *chain_parts(1))


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text.replace(b'"float32"', b'"float33"', 1),
        lambda text: text.replace(b'"symbol":"add"', b'"symbol":"sub"'),
        lambda text: text.replace(b'"symbols":["n"]', b'"symbols":["m"]'),
        lambda text: text.replace(b'"arguments":[0,', b'"arguments":[77,'),
        lambda text: text.replace(b'"steps"', b'"stops"'),
        lambda text: b"[]",
        lambda text: b"[" * 100_000,
    ],
)
def test_contradictory_manifests_are_refused(change) -> None:
    text = chain_parts(2)[0].to_json()
    assert change(text) != text
    with pytest.raises(ArtifactError, match="its manifest"):
        Manifest.from_json(change(text))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 16384, 16385, 40000, abi.CHUNK_BYTES, abi.CHUNK_BYTES + 16391])
def test_compiled_and_numpy_checksums_agree(size: int) -> None:
    native = NativeCode(chain(1))
    data = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
    found = np.zeros(-(-size // abi.CHUNK_BYTES) + 1, np.uint64)
    native.checksum(address_of(data), size, address_of(found))
    np.testing.assert_array_equal(found[:-1], checksum(data))
    assert found[-1] == 0


def test_checksum_sees_every_bit_order_and_length() -> None:
    data = np.random.default_rng(0).integers(0, 256, 20000, dtype=np.uint8)
    sums = {int(checksum(data)[0]), int(checksum(data[::-1].copy())[0]), int(checksum(data[:-1])[0])}
    padded = np.concatenate([data, np.zeros(1, np.uint8)])
    sums.add(int(checksum(padded)[0]))
    for bit in range(64):
        changed = data.copy()
        changed[8 * 77 + bit // 8] ^= 1 << (bit % 8)
        sums.add(int(checksum(changed)[0]))
    top = data.copy()
    top[7] ^= 0x80
    top[16384 + 7] ^= 0x80  # the same lane, one row on: must not cancel
    sums.add(int(checksum(top)[0]))
    assert len(sums) == 4 + 64 + 1
