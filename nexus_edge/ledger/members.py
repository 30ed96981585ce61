"""Who belongs to which fleet: one row for each member and key, checked and replaced by the next certificate."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nexus_edge.ledger.credit import Group
from nexus_edge.types import NodeId, UnixMs
from nexus_edge.wire.certificates import check_certificate
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import GROUP_LIFE_MS, MEMBERS
from nexus_edge.wire.objects import GroupCertificate
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed, envelope, read_signed

FULL_RETRY_MS: Final = 3_600_000
"""Rows become free when certificates are a month old."""


@dataclass(frozen=True)
class Member:
    """A node that a fleet's key names, as long as its certificate lasts."""

    node: NodeId
    group: Group
    until: UnixMs


def everyone(connection: sqlite3.Connection, groups: Sequence[Group], now: UnixMs) -> Mapping[NodeId, Member]:
    """All who belong to a fleet now."""
    found: dict[NodeId, Member] = {}
    for group in reversed(groups):  # of several fleets the one that stands first counts
        for node, until in connection.execute("SELECT node, exp FROM certificates WHERE key = ? AND exp > ?", (group.key, now)):
            found[NodeId(node)] = Member(NodeId(node), group, UnixMs(until))
    return found


def find(connection: sqlite3.Connection, groups: Sequence[Group], node: NodeId, now: UnixMs) -> Member | None:
    """The fleet that one node belongs to now."""
    for group in groups:
        row = connection.execute("SELECT exp FROM certificates WHERE node = ? AND key = ? AND exp > ?", (node, group.key, now)).fetchone()
        if row is not None:
            return Member(node, group, UnixMs(row[0]))
    return None


def is_new(
    connection: sqlite3.Connection, groups: Sequence[Group], certificate: Signed[GroupCertificate], peer: NodeId, now: UnixMs
) -> bool:
    """Whether a certificate that a peer shows is one to keep; False for the one that is held.

    Raises a `Refusal`: those of `check_certificate`; `not-found` for a key that is none of ours; `conflict` for one that is older than what
    is held; `busy` if the fleet has as many members as are remembered.
    """
    what = certificate.object
    check_certificate(what, peer, now)
    if all(group.key != what.iss for group in groups):
        raise Refusal(Code.NOT_FOUND, "no fleet of this key is served here")
    row = connection.execute("SELECT seq, body FROM certificates WHERE node = ? AND key = ?", (peer, what.iss)).fetchone()
    if row is None:
        kept = "SELECT count(*) FROM certificates WHERE key = ? AND seq > ?"
        if connection.execute(kept, (what.iss, now - GROUP_LIFE_MS)).fetchone()[0] >= MEMBERS:
            raise Refusal(Code.BUSY, f"{MEMBERS} members of this fleet are remembered", retry_ms=FULL_RETRY_MS)
        return True
    if row[1] == certificate.body:
        return False
    if row[0] >= what.seq:
        raise Refusal(Code.CONFLICT, "a newer certificate is held")
    return True


def keep(connection: sqlite3.Connection, certificate: Signed[GroupCertificate], now: UnixMs) -> None:
    """Put it in the place of the one before, and forget what is so old that nothing older than it can hold any more."""
    what = certificate.object
    connection.execute("DELETE FROM certificates WHERE seq <= ?", (now - GROUP_LIFE_MS,))
    connection.execute(
        "INSERT OR REPLACE INTO certificates (node, key, seq, exp, body, sig) VALUES (?, ?, ?, ?, ?, ?)",
        (what.node, what.iss, what.seq, what.exp, certificate.body, certificate.signature),
    )


def faults(connection: sqlite3.Connection) -> Iterator[str]:
    """Rows that say something else than what was signed."""
    for node, key, seq, exp, body, signature in connection.execute("SELECT node, key, seq, exp, body, sig FROM certificates"):
        try:
            what = read_signed(envelope(body, signature), GroupCertificate).object
        except BadObject as broken:
            yield f"certificate of {node.hex()[:16]}: {broken.why}"
            continue
        if (what.node, what.iss, what.seq, what.exp) != (node, key, seq, exp):
            yield f"certificate of {node.hex()[:16]}: its row says something else"
