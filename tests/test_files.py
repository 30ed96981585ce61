"""Files are read under a limit and written whole."""

import os
from pathlib import Path

import pytest

from nexus_edge.errors import FileError
from nexus_edge.files import read_bounded, write_whole


def test_the_limit_is_inclusive(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_bounded(file, 5, "proof") == b"12345"
    with pytest.raises(FileError, match=r"the proof cannot be read: .* has more than 4 bytes"):
        read_bounded(file, 4, "proof")


def test_endless_files_are_not_read_to_their_end() -> None:
    with pytest.raises(FileError, match="has more than 1000 bytes"):
        read_bounded(Path("/dev/zero"), 1000, "proof")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="Is a directory"):
        read_bounded(tmp_path, 10, "proof")
    with pytest.raises(FileError, match="cannot be written"):
        write_whole(tmp_path, b"", "proof")


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old and longer")
    write_whole(file, b"new", "proof")
    assert file.read_bytes() == b"new"
    assert [left.name for left in tmp_path.iterdir()] == ["file"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", b"x", "proof")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_an_absent_folder(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"the proof cannot be written: .*No such file"):
        write_whole(tmp_path / "absent" / "file", b"x", "proof")


def test_pipes_are_written_directly() -> None:
    write_whole(Path("/dev/null"), b"x", "proof")
    assert not Path("/dev/null").is_file()
