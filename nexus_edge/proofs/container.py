"""Versioned files of a fixed number of sections.

    magic     8 bytes
    version   u32, little endian
    lengths   one u64, little endian, for each section
    sections  one after the other

Nothing else: the file ends with the last section. Every length is compared with its bound before a byte of that section is touched.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from nexus_edge.errors import NexusEdgeError

MIB = 1 << 20


class Fault(StrEnum):
    """In which way bytes fail to be a container."""

    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    TRAILING = "trailing"


class ContainerError(NexusEdgeError):
    """The bytes are not a container of the expected format."""

    def __init__(self, fault: Fault, why: str) -> None:
        super().__init__("malformed file", why)
        self.fault = fault


@dataclass(frozen=True)
class Section:
    """One part of a container, and the most bytes it may have."""

    name: str
    limit: int


@dataclass(frozen=True)
class Format:
    """A container format."""

    magic: bytes
    version: int
    sections: tuple[Section, ...]

    @property
    def limit(self) -> int:
        """The most bytes a file of this format may have."""
        return self._header_length + sum(section.limit for section in self.sections)

    def encode(self, *parts: bytes) -> bytes:
        """The container of these sections."""
        for section, part in zip(self.sections, parts, strict=True):
            if len(part) > section.limit:
                raise ContainerError(Fault.MALFORMED, f"{section.name} of {len(part)} bytes, at most {section.limit} are allowed")
        lengths = struct.pack(f"<{len(parts)}Q", *map(len, parts))
        return b"".join((self.magic, struct.pack("<I", self.version), lengths, *parts))

    def decode(self, data: bytes) -> tuple[bytes, ...]:
        """The sections, or `ContainerError`."""
        if not data.startswith(self.magic[: len(data)]):
            raise ContainerError(Fault.MALFORMED, f"it does not begin with {self.magic.decode()}")
        if len(data) < self._header_length:
            raise ContainerError(Fault.TRUNCATED, f"a header of {self._header_length} bytes was expected, found {len(data)} bytes")
        (version,) = struct.unpack_from("<I", data, len(self.magic))
        if version != self.version:
            raise ContainerError(Fault.MALFORMED, f"version {version}, this program reads version {self.version}")
        lengths = struct.unpack_from(f"<{len(self.sections)}Q", data, len(self.magic) + 4)
        for section, length in zip(self.sections, lengths, strict=True):
            if length > section.limit:
                raise ContainerError(Fault.MALFORMED, f"{section.name} of {length} bytes, at most {section.limit} are allowed")
        expected = self._header_length + sum(lengths)
        if len(data) != expected:
            fault = Fault.TRUNCATED if len(data) < expected else Fault.TRAILING
            raise ContainerError(fault, f"{expected} bytes were expected, found {len(data)}")
        parts = []
        start = self._header_length
        for length in lengths:
            parts.append(data[start : start + length])
            start += length
        return tuple(parts)

    @property
    def _header_length(self) -> int:
        return len(self.magic) + 4 + 8 * len(self.sections)


class CheckedFormat(Format):
    """A container whose last section is the SHA-256 of those before it: against damage, not against malice."""

    def encode(self, *parts: bytes) -> bytes:
        """The container of all sections but the checksum, which is added."""
        return super().encode(*parts, self._checksum(parts))

    def decode(self, data: bytes) -> tuple[bytes, ...]:
        """The sections without the checksum, or `ContainerError`."""
        *parts, checksum = super().decode(data)
        if checksum != self._checksum(parts):
            raise ContainerError(Fault.MALFORMED, "its checksum is wrong")
        return tuple(parts)

    @staticmethod
    def _checksum(parts: Iterable[bytes]) -> bytes:
        return hashlib.sha256(b"".join(parts)).digest()
