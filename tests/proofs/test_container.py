"""The container codec: round trips, and every damaged file is refused with the right fault."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.proofs.container import ContainerError, Fault, Format, Section

FORMAT = Format(b"NXETEST1", 3, (Section("first", 50), Section("second", 20)))
HEADER = 8 + 4 + 16


def fault_of(data: bytes) -> Fault:
    with pytest.raises(ContainerError) as caught:
        FORMAT.decode(data)
    return caught.value.fault


@given(first=st.binary(max_size=50), second=st.binary(max_size=20))
def test_what_was_encoded_is_decoded(first: bytes, second: bytes) -> None:
    assert FORMAT.decode(FORMAT.encode(first, second)) == (first, second)


@given(first=st.binary(max_size=50), second=st.binary(max_size=20), cut=st.integers(min_value=1, max_value=98))
def test_a_shortened_file_is_truncated(first: bytes, second: bytes, cut: int) -> None:
    data = FORMAT.encode(first, second)
    assert fault_of(data[: max(0, len(data) - cut)]) is Fault.TRUNCATED


@given(extra=st.binary(min_size=1, max_size=40))
def test_bytes_behind_the_end_are_refused(extra: bytes) -> None:
    assert fault_of(FORMAT.encode(b"abc", b"de") + extra) is Fault.TRAILING


@given(place=st.integers(min_value=0, max_value=11), flip=st.integers(min_value=1, max_value=255))
def test_magic_and_version_are_compared(place: int, flip: int) -> None:
    data = bytearray(FORMAT.encode(b"abc", b"de"))
    data[place] ^= flip
    assert fault_of(bytes(data)) is Fault.MALFORMED


@pytest.mark.parametrize("lengths", [(51, 0), (0, 21), (2**64 - 1, 1)])
def test_lengths_are_bounded_before_anything_is_read(lengths: tuple[int, int]) -> None:
    data = b"NXETEST1" + struct.pack("<IQQ", 3, *lengths)
    assert fault_of(data) is Fault.MALFORMED


def test_a_section_that_is_too_long_is_not_written() -> None:
    with pytest.raises(ContainerError, match="second of 21 bytes, at most 20"):
        FORMAT.encode(b"", bytes(21))


@given(st.binary(max_size=120))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    try:
        parts = FORMAT.decode(data)
    except ContainerError:
        return
    assert FORMAT.encode(*parts) == data


def test_the_layout_is_the_documented_one() -> None:
    assert FORMAT.encode(b"abc", b"de") == b"NXETEST1" + bytes([3, 0, 0, 0]) + bytes([3] + 7 * [0] + [2] + 7 * [0]) + b"abcde"
    assert FORMAT.limit == HEADER + 70
