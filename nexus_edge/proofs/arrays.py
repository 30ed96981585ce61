"""Tensors in files: `.npy` for one, `.npz` by tensor name for several. What a file claims is compared with the model before anything is
allocated; nothing is converted, and nothing is unpickled."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from nexus_edge.errors import BadInput
from nexus_edge.files import read_bounded, write_whole
from nexus_edge.proofs.ports import Array, Port

_HEADER_LIMIT = 65536
_NPY_MAGIC = b"\x93NUMPY"
_ZIP_MAGIC = b"PK\x03\x04"


def read_tensors(path: Path, ports: Sequence[Port], noun: str) -> list[Array]:
    """One array for each port, of exactly its dtype and shape."""
    room = sum(_bytes(port) + _HEADER_LIMIT for port in ports)
    data = read_bounded(path, room + _HEADER_LIMIT, noun)
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
    return [_read_npy(io.BytesIO(data), path, ports[0])]


def write_tensors(path: Path, ports: Sequence[Port], arrays: Sequence[Array], noun: str) -> None:
    """One port as `.npy`, several as `.npz` by tensor name."""
    if len(ports) == 1:
        write_whole(path, _npy(arrays[0]), noun)
        return
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for port, array in zip(ports, arrays, strict=True):
            archive.writestr(zipfile.ZipInfo(f"{port.name}.npy"), _npy(array))
    write_whole(path, packed.getvalue(), noun)


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
                tensors.append(_read_npy(io.BytesIO(content), path, port))
            return tensors
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as broken:
        raise BadInput("the arrays cannot be read", f"{path} is not a readable .npz file: {broken}") from broken


def _read_npy(file: BinaryIO, path: Path, port: Port) -> Array:
    """The array, if header and length are exactly the port's."""
    try:
        version = npy.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = npy.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = npy.read_array_header_2_0(file)
        else:
            raise ValueError(f"version {version[0]}.{version[1]} of the .npy format")
    except (ValueError, EOFError, TypeError, SyntaxError, RecursionError, MemoryError) as broken:
        raise BadInput("the array cannot be read", f"{path}: {broken}") from broken
    if dtype != port.dtype or shape != port.shape:
        raise BadInput(
            f"the array for {port.name!r} does not fit",
            f"{path}: expected {port.dtype.str} {list(port.shape)}, got {dtype.str} {list(shape)}",
        )
    content = file.read()
    if len(content) != _bytes(port):
        raise BadInput(
            f"the array for {port.name!r} does not fit", f"{path}: {_bytes(port)} bytes of values were expected, found {len(content)}"
        )
    values = np.frombuffer(content, dtype=dtype)
    array = values.reshape(shape[::-1]).transpose() if fortran else values.reshape(shape)
    return np.ascontiguousarray(array)


def _bytes(port: Port) -> int:
    return port.dtype.itemsize * int(np.prod(port.shape, dtype=np.int64))
