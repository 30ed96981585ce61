"""Arrays in files: what fits is read exactly, everything else is refused before it is allocated."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib import format as npy
from numpy.typing import NDArray

from nexus_edge.errors import BadInput, FileError
from nexus_edge.proofs.arrays import read_tensors, write_tensors
from nexus_edge.proofs.ports import Port

IMAGE = Port("image", np.dtype(np.int8), (2, 3), 1.0, 0, False)
MASK = Port("the/mask:0", np.dtype(np.uint8), (4,), 1.0, 0, False)
VALUES = np.arange(6, dtype=np.int8).reshape(2, 3)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "array"


def saved(array: NDArray[np.int8]) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def read(file: Path) -> NDArray[np.int8]:
    (array,) = read_tensors(file, [IMAGE], "input")
    return array


def test_one_array(file: Path) -> None:
    write_tensors(file, [IMAGE], [VALUES], "output")
    assert np.array_equal(np.load(file), VALUES)
    assert np.array_equal(read(file), VALUES)


def test_several_arrays_by_name(file: Path) -> None:
    mask = np.array([1, 2, 3, 255], np.uint8)
    write_tensors(file, [IMAGE, MASK], [VALUES, mask], "output")
    with np.load(file) as archive:
        assert sorted(archive) == ["image", "the/mask:0"]
    assert [array.tolist() for array in read_tensors(file, [MASK, IMAGE], "input")] == [mask.tolist(), VALUES.tolist()]


def test_numpy_archives_are_read(file: Path) -> None:
    with file.open("wb") as opened:
        np.savez_compressed(opened, image=VALUES)
    assert np.array_equal(read(file), VALUES)


def test_fortran_order_is_a_layout_not_a_meaning(file: Path) -> None:
    file.write_bytes(saved(np.asfortranarray(VALUES)))
    assert b"'fortran_order': True" in file.read_bytes()
    array = read(file)
    assert np.array_equal(array, VALUES)
    assert array.flags.c_contiguous


@pytest.mark.parametrize(
    ("array", "got"),
    [
        (VALUES.astype(np.uint8), r"expected int8 \[2, 3\], got uint8 \[2, 3\]"),
        (VALUES.astype(np.float32), "got float32"),
        (VALUES.astype(np.int64), "got int64"),
        (VALUES.astype(">i2"), "got int16 of the other byte order"),
        (VALUES.astype(bool), "got bool"),
        (VALUES.reshape(3, 2), r"got int8 \[3, 2\]"),
        (VALUES.reshape(6), r"got int8 \[6\]"),
        (VALUES[None], r"got int8 \[1, 2, 3\]"),
        (VALUES.astype(object), "got object"),
    ],
)
def test_other_types_and_shapes_are_refused(file: Path, array: NDArray[np.int8], got: str) -> None:
    file.write_bytes(saved(array)[:200])
    with pytest.raises(BadInput, match=got):
        read(file)


@given(cut=st.integers(min_value=-6, max_value=6).filter(bool))
def test_the_number_of_bytes_must_fit(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    file = tmp_path_factory.mktemp("array") / "array"
    content = saved(VALUES)
    file.write_bytes(content[:cut] if cut < 0 else content + bytes(cut))
    with pytest.raises(BadInput, match="6 bytes of values were expected"):
        read(file)


def test_a_claimed_giant_is_refused_by_its_header(file: Path) -> None:
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "|i1", "fortran_order": False, "shape": (1 << 50,)})
    file.write_bytes(header.getvalue())
    with pytest.raises(BadInput, match="1125899906842624"):
        read(file)


def test_a_file_larger_than_any_fitting_one_is_not_read_to_its_end(file: Path) -> None:
    file.write_bytes(saved(VALUES) + bytes(1 << 20))
    with pytest.raises(BadInput, match=r"6 bytes of values were expected, found [0-9]{5}"):
        read(file)


def test_a_much_larger_array_is_named(file: Path) -> None:
    file.write_bytes(saved(np.zeros((1, 224, 224, 3), np.int8)))
    with pytest.raises(BadInput, match=r"expected int8 \[2, 3\], got int8 \[1, 224, 224, 3\]"):
        read(file)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff",
        b"\x93NUMPY\x09\x00",
        b"\x93NUMPY\x01\x00\x04\x00{,}\n",
        b"\x93NUMPY\x01\x00\x60\x00" + 96 * b"(",
        b"PK\x03\x04",
        b"PK\x03\x04" + bytes(40),
    ],
)
def test_broken_files_are_refused(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(BadInput):
        read(file)


@given(place=st.integers(min_value=0, max_value=133), flip=st.integers(min_value=1, max_value=255))
def test_a_damaged_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, place: int, flip: int) -> None:
    file = tmp_path_factory.mktemp("array") / "array"
    content = bytearray(saved(VALUES))
    content[place] ^= flip
    file.write_bytes(bytes(content))
    try:
        array = read(file)
    except BadInput:
        return
    assert array.dtype == np.int8
    assert array.shape == (2, 3)


def archive(file: Path, *members: tuple[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members:
            made.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def test_missing_and_additional_names_are_refused(file: Path) -> None:
    archive(file, ("other.npy", saved(VALUES)))
    with pytest.raises(BadInput, match=r"holds \['other.npy'\], expected \['image.npy'\]"):
        read(file)
    archive(file, ("image.npy", saved(VALUES)), ("other.npy", saved(VALUES)))
    with pytest.raises(BadInput, match="expected"):
        read(file)


def test_a_compressed_giant_is_not_unpacked(file: Path) -> None:
    archive(file, ("image.npy", saved(VALUES) + bytes(1 << 22)))
    assert file.stat().st_size < 1 << 13
    with pytest.raises(BadInput, match="6 bytes of values were expected, found 3975"):
        read(file)


def test_several_tensors_need_an_archive(file: Path) -> None:
    file.write_bytes(saved(VALUES))
    with pytest.raises(BadInput, match=r"the model has 2 tensors: image, the/mask:0"):
        read_tensors(file, [IMAGE, MASK], "input")


def test_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        read(tmp_path / "absent")
