"""The certificates that name this node: read from the owner's files, again whenever one of them changes."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from nexus_edge.clock import now_ms
from nexus_edge.errors import FileError, IdentityError
from nexus_edge.files import read_bounded
from nexus_edge.identity import short_id
from nexus_edge.types import NodeId, UnixMs
from nexus_edge.wire.certificates import FILE_LIMIT, check_certificate, read_certificate
from nexus_edge.wire.objects import GroupCertificate
from nexus_edge.wire.refusals import Refusal
from nexus_edge.wire.signing import Signed

SOON_MS: Final = 3 * 86_400_000
"""A certificate that ends within three days asks for attention: a weekend, and a day to notice."""
WARNED_MS: Final = 86_400_000
"""The log says so once a day."""

log = structlog.get_logger("market")


@dataclass(frozen=True)
class Own:
    """One file, and what is in it."""

    file: Path
    certificate: Signed[GroupCertificate] | None
    """The last good one that was read."""
    fault: str = ""
    """Why the file is of no use now."""

    def problem(self, node: NodeId, now: UnixMs) -> str:
        """What its owner should know; empty if all is well."""
        if self.fault:
            return self.fault
        if self.certificate is None:
            return ""
        try:
            check_certificate(self.certificate.object, node, now)
        except Refusal as refused:
            return refused.text
        left = self.certificate.object.exp - now
        return f"it ends in {left // 3_600_000} hours: have it renewed" if left < SOON_MS else ""


class Membership:
    """Of which fleets this node says that it is one."""

    def __init__(self, node: NodeId, files: Sequence[Path], clock: Callable[[], UnixMs] = now_ms) -> None:
        self.own = tuple(Own(file, None) for file in files)
        self._node = node
        self._clock = clock
        self._seen: dict[Path, tuple[int, ...]] = {}
        self._warned: dict[Path, tuple[str, UnixMs]] = {}
        """Of which files the log has said what is wrong, and when."""

    async def look(self) -> None:
        """Read the files that have changed. One that cannot be read leaves what was read before, and is told."""
        if not self.own:
            return
        self.own = await asyncio.to_thread(lambda: tuple(self._looked(one) for one in self.own))
        for one in self.own:
            self._warn(one)

    def holding(self) -> tuple[Signed[GroupCertificate], ...]:
        """The certificates that hold now: what peers are shown."""
        now = self._clock()
        return tuple(one.certificate for one in self.own if one.certificate is not None and _holds(one.certificate, self._node, now))

    def states(self) -> tuple[tuple[Own, str], ...]:
        """Each file, with what the owner should know of it."""
        now = self._clock()
        return tuple((one, one.problem(self._node, now)) for one in self.own)

    def _looked(self, one: Own) -> Own:
        mark = _mark(one.file)
        if mark == self._seen.get(one.file):
            return one
        self._seen[one.file] = mark
        try:
            return Own(one.file, read_certificate(read_bounded(one.file, FILE_LIMIT, "group certificate")))
        except (FileError, IdentityError) as failed:
            return Own(one.file, one.certificate, str(failed))

    def _warn(self, one: Own) -> None:
        now = self._clock()
        problem = one.problem(self._node, now)
        if not problem:
            self._warned.pop(one.file, None)
            return
        kind = one.fault or str(one.certificate is not None and _holds(one.certificate, self._node, now))
        before = self._warned.get(one.file)
        if before is None or before[0] != kind or now - before[1] > WARNED_MS:
            self._warned[one.file] = kind, now
            group = "" if one.certificate is None else short_id(one.certificate.issuer)
            log.warning("a group certificate of ours", file=one.file, group=group, problem=problem)


def _holds(certificate: Signed[GroupCertificate], node: NodeId, now: UnixMs) -> bool:
    try:
        check_certificate(certificate.object, node, now)
    except Refusal:
        return False
    return True


def _mark(file: Path) -> tuple[int, ...]:
    """What differs once a file was replaced, written or made readable; nothing for one that is not there."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_ino, found.st_size, found.st_ctime_ns
