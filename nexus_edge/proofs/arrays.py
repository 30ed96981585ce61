"""Tensors in files: `.npy` for one, `.npz` by tensor name for several.

What a file claims is compared with the model before anything is allocated; nothing is converted, and nothing is unpickled.
"""

import ast
import io
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

from nexus_edge.errors import BadInput
from nexus_edge.files import read_prefix, write_whole
from nexus_edge.proofs.ports import Array, Port

_HEADER_LIMIT = 4096
_NPY_MAGIC = b"\x93NUMPY"
_LENGTHS = {b"\x01\x00": "<H", b"\x02\x00": "<I"}  # by format version; version 3 is for field names, which no tensor has
_ZIP_MAGIC = b"PK\x03\x04"


def read_tensors(path: Path, ports: Sequence[Port], noun: str) -> list[Array]:
    """One array for each port, of exactly its dtype and shape."""
    limit = _HEADER_LIMIT + sum(_bytes(port) + 2 * _HEADER_LIMIT for port in ports)
    return parse_tensors(
        read_prefix(path, limit + 1, noun), path, ports, noun
    )  # of a longer file the header still says what is wrong with it


def parse_tensors(data: bytes, path: Path, ports: Sequence[Port], noun: str) -> list[Array]:
    """Likewise, from the content of a file; `path` is for messages only."""
    if data.startswith(_ZIP_MAGIC):
        return _read_npz(data, path, ports)
    if not data.startswith(_NPY_MAGIC):
        raise BadInput(f"the {noun} cannot be used", f"{path} is neither an .npy nor an .npz file", "numpy.save and numpy.savez write them")
    if len(ports) != 1:
        names = ", ".join(port.name for port in ports)
        raise BadInput(
            f"the {noun} cannot be used",
            f"{path} holds one array, the model has {len(ports)} tensors: {names}",
            "use an .npz by tensor name",
        )
    return [_read_npy(data, path, ports[0])]


def write_tensors(path: Path, ports: Sequence[Port], arrays: Sequence[Array], noun: str) -> None:
    """One port as `.npy`, several as `.npz` by tensor name."""
    write_whole(path, format_tensors(ports, arrays), noun)


def format_tensors(ports: Sequence[Port], arrays: Sequence[Array]) -> bytes:
    """The content of such a file."""
    if len(ports) == 1:
        return _npy(arrays[0])
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for port, array in zip(ports, arrays, strict=True):
            archive.writestr(zipfile.ZipInfo(f"{port.name}.npy"), _npy(array))
    return packed.getvalue()


def _npy(array: Array) -> bytes:
    file = io.BytesIO()
    npy.write_array(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def _read_npz(data: bytes, path: Path, ports: Sequence[Port]) -> list[Array]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            found = [member.filename for member in archive.infolist()]
            wanted = [f"{port.name}.npy" for port in ports]
            if sorted(found) != sorted(wanted):
                raise BadInput("the arrays do not fit the model", f"{path} holds {sorted(found)}, expected {sorted(wanted)}")
            tensors = []
            for port, name in zip(ports, wanted, strict=True):
                with archive.open(name) as member:
                    # The directory's sizes are claims too: read no more than the tensor needs.
                    content = member.read(_bytes(port) + _HEADER_LIMIT + 1)
                tensors.append(_read_npy(content, path, port))
            return tensors
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as broken:
        raise BadInput("the arrays cannot be read", f"{path} is not a readable .npz file: {broken}") from broken


class _Header(NamedTuple):
    """What an `.npy` file says it holds, and where its values begin."""

    dtype: np.dtype[Any]
    fortran: bool
    shape: tuple[int, ...]
    end: int

    @classmethod
    def parse(cls, data: bytes) -> "_Header":
        """Raise `ValueError` for everything that is no header of a plain array.

        NumPy's own reader accepts more, and fails in more ways than it documents.
        """
        length_format = _LENGTHS.get(data[6:8])
        if not data.startswith(_NPY_MAGIC) or length_format is None or len(data) < 12:
            raise ValueError("no .npy file of format version 1 or 2")
        start = 8 + struct.calcsize(length_format)
        (length,) = struct.unpack_from(length_format, data, 8)
        if length > _HEADER_LIMIT or start + length > len(data):
            raise ValueError("the header is too long")
        try:
            match ast.literal_eval(data[start : start + length].decode("latin1").strip()):
                case {"descr": str(descr), "fortran_order": bool(fortran), "shape": tuple(shape), **rest} if not rest:
                    if re.fullmatch("[<>=|]?[a-zA-Z][0-9]*", descr) and all(type(side) is int and side >= 0 for side in shape):
                        return cls(np.dtype(descr), fortran, shape, start + length)
        except (SyntaxError, TypeError, RecursionError, MemoryError) as broken:
            raise ValueError(f"the header cannot be read: {broken}") from broken
        raise ValueError("the header does not describe a plain array")


def _read_npy(data: bytes, path: Path, port: Port) -> Array:
    """The array, if header and length are exactly the port's."""
    try:
        header = _Header.parse(data)
    except ValueError as broken:
        raise BadInput(f"the array for {port.name!r} cannot be read", f"{path}: {broken}") from broken
    if header.dtype != port.dtype or header.shape != port.shape:
        got = f"{header.dtype.name}{'' if header.dtype.isnative else ' of the other byte order'} {list(header.shape)}"
        raise BadInput(f"the array for {port.name!r} does not fit", f"{path}: expected {port.dtype.name} {list(port.shape)}, got {got}")
    content = memoryview(data)[header.end :]
    if len(content) != _bytes(port):
        raise BadInput(
            f"the array for {port.name!r} does not fit", f"{path}: {_bytes(port)} bytes of values were expected, found {len(content)}"
        )
    values = np.frombuffer(content, dtype=header.dtype)
    array = values.reshape(header.shape[::-1]).transpose() if header.fortran else values.reshape(header.shape)
    return np.ascontiguousarray(array)


def _bytes(port: Port) -> int:
    return port.dtype.itemsize * int(np.prod(port.shape, dtype=np.int64))
