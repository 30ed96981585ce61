"""What every transition may write: objects and events. Money is events too, and each is turned into rows at once."""

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from nexus_edge.identity import NodeKey, short_id
from nexus_edge.ledger.age import write_age
from nexus_edge.ledger.credit import CreditPolicy
from nexus_edge.ledger.errors import Unsynchronised
from nexus_edge.ledger.projection import STREAM, TRUST_MS, Projection
from nexus_edge.ledger.reading import Reader
from nexus_edge.types import Digest, NodeId, UnixMs
from nexus_edge.wire.cbor import Value, encode
from nexus_edge.wire.objects import Lease
from nexus_edge.wire.signing import Signed

NO_DIGEST = Digest(bytes(32))


class Recorder(Reader):
    """A reader that writes. `chains` are those that this process opened, by creditor."""

    def __init__(
        self, connection: sqlite3.Connection, key: NodeKey, policy: CreditPolicy, now: UnixMs, age: UnixMs, chains: dict[NodeId, bytes]
    ) -> None:
        super().__init__(connection, key.id, policy, now, age)
        self._key = key
        self._chains = chains
        self._projection = Projection(connection, key.id)
        self.kept: list[Signed[Any]] = []

    def keep(self, signed: Signed[Any]) -> None:
        """Keep an object as it was signed."""
        self._run(
            "INSERT OR IGNORE INTO objects (id, t, body, sig) VALUES (?, ?, ?, ?)",
            signed.id,
            signed.object.kind,
            signed.body,
            signed.signature,
        )
        self.kept.append(signed)

    def event(self, stream: str, subject: bytes, kind: str, body: Mapping[str, Value]) -> None:
        """Append an event. The stream `money` is the ledger's own."""
        if stream == STREAM:
            raise ValueError("the ledger writes these events itself")
        self._append(stream, subject, kind, body)
        self._run("INSERT OR IGNORE INTO live (stream, subject) VALUES (?, ?)", stream, subject)

    def over(self, stream: str, subject: bytes) -> None:
        """Nothing more is to be done about a subject; from now on it grows old."""
        self._run("UPDATE live SET since = ? WHERE stream = ? AND subject = ?", self._age, stream, subject)
        self.keep_age()

    def leave(self, stream: str, subjects: Iterable[bytes]) -> None:
        """Nobody will ask for them any more: their events are not read at the next start."""
        self._connection.executemany("DELETE FROM live WHERE stream = ? AND subject = ?", [(stream, subject) for subject in subjects])
        self.keep_age()

    def remember(self, stream: str, subject: bytes, body: Mapping[str, Value]) -> None:
        """What is to be known of a subject at the next start without reading its events."""
        self._run("INSERT OR REPLACE INTO memories (stream, subject, body) VALUES (?, ?, ?)", stream, subject, encode(body))

    def keep_age(self) -> None:
        """Write how old the node is."""
        write_age(self._connection, self._age)

    def audit(self, who: str, what: str, detail: str) -> int:
        """Write down who changed what by the admin socket; returns the number of the line."""
        return int(self._run("INSERT INTO audits (at, who, what, detail) VALUES (?, ?, ?, ?)", self._now, who, what, detail).lastrowid or 0)

    def _money(self, peer: bytes, kind: str, **body: Value) -> None:
        whole = {"at": self._now, "age": self._age, **body}
        self._append(STREAM, peer, kind, whole)
        self._projection.apply(peer, kind, whole)

    def _append(self, stream: str, subject: bytes, kind: str, body: Mapping[str, Value]) -> None:
        self._run("INSERT INTO events (stream, subject, kind, body) VALUES (?, ?, ?, ?)", stream, subject, kind, encode(body))

    def _obligation(self, lease: Digest, role: str) -> tuple[NodeId, int, str] | None:
        """Peer, price and state."""
        row = self._one("SELECT peer, price, state FROM obligations WHERE lease = ? AND role = ?", lease, role)
        return None if row is None else (NodeId(row[0]), row[1], row[2])

    def _order(self, lease: Digest) -> Lease:
        return self.object(lease).of(Lease).object

    def _trusts(self, peer: NodeId) -> bool:
        """Whether we may have forgotten what a peer owes us: after a restore, or when it showed us an entry of ours that we lack."""
        row = self._one("SELECT trusted_until FROM accounts WHERE peer = ?", peer)
        restored = self._one("SELECT value FROM marks WHERE key = 'restored'")
        return self._age < max(row[0] if row else 0, restored[0] + TRUST_MS if restored else 0)

    def _check_synchronised(self, peer: NodeId) -> None:
        row = self._one("SELECT unsynchronised FROM accounts WHERE peer = ?", peer)
        if row is not None and row[0]:
            raise Unsynchronised(
                "the ledger was restored", f"the book of {short_id(peer)} has not been compared since", "wait until it is up"
            )

    def _run(self, query: str, *values: Any) -> sqlite3.Cursor:
        return self._connection.execute(query, values)
