"""Files are written whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from egc import files
from egc.files import whole


def test_a_file_takes_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with whole(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_all_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), whole(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_file_are_in_each_others_way_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "f"
    with whole(path) as first, whole(path) as second:
        first.write(b"first")
        second.write(b"second")
    assert path.read_bytes() == b"first"  # whose block ended last
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_is_what_the_user_asked_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with whole(tmp_path / "f") as file:
            file.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o640


def test_a_file_of_the_longest_name_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 127)  # 254 bytes
    with whole(path) as file:
        file.write(b"x")
    assert list(tmp_path.iterdir()) == [path]


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    whys = {tmp_path / "pipe": "a pipe", tmp_path: "a folder", Path("/dev/zero"): "a device"}
    for path, why in whys.items():
        with pytest.raises(OSError) as error:
            files.opened(path)
        assert why in str(error.value.strerror) and why in str(files.refusal(path))
    assert files.refusal("a\0b") == "no file can have this name"
    assert files.refusal("a" * 300) == "File name too long"
    (tmp_path / "f").write_bytes(b"x\r\ny\r")
    assert files.refusal(tmp_path / "f") is None
    assert files.text(tmp_path / "f") == "x\ny\n"
    assert files.mapped(tmp_path / "f").tobytes() == b"x\r\ny\r"


def test_a_text_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room
    with pytest.raises(OSError, match="longer than 16 MiB"):
        files.text(tmp_path / "f")


def test_a_circle_of_links_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert files.real(tmp_path / "a").parent == tmp_path
