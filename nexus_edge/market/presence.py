"""What a node says of itself: its record and its capabilities, signed, and renewed before they are old."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from nexus_edge.clock import now_ms
from nexus_edge.discovery import PeerDirectory
from nexus_edge.identity import NodeKey
from nexus_edge.types import NodeId, UnixMs
from nexus_edge.wire.limits import RECORD_LIFE_MS
from nexus_edge.wire.messages import PeersAnswer, PeersRequest
from nexus_edge.wire.objects import Caps, DeviceClaim, ExecutorClaim, ModelClaim, NodeRecord
from nexus_edge.wire.signing import Signed, sign

RENEWED_S: Final = 300.0
"""A record is signed afresh after this, or when what it says changed: peers see a new `seq` then."""
SAMPLE: Final = 32


@dataclass(frozen=True)
class Self:
    """What there is to say."""

    name: str
    mesh: str
    software: str
    addresses: tuple[str, ...]
    devices: tuple[DeviceClaim, ...]
    executors: tuple[ExecutorClaim, ...]
    models: tuple[ModelClaim, ...]
    rate: int
    slots: int


class Presence:
    """Signs what there is to say, and samples whom we know."""

    def __init__(self, key: NodeKey, directory: PeerDirectory, look: Callable[[], Self]) -> None:
        self._key = key
        self._directory = directory
        self._look = look
        self._said: Self | None = None
        self._signed_at = 0.0
        self._seq = 0
        self._record: Signed[NodeRecord] | None = None
        self._caps: Signed[Caps] | None = None

    def record(self) -> Signed[NodeRecord]:
        """Our record."""
        return self._fresh()[0]

    def caps(self) -> Signed[Caps]:
        """Our capabilities."""
        return self._fresh()[1]

    def sample(self, caller: NodeId, request: PeersRequest) -> PeersAnswer:
        """Reachable peers that the caller does not name."""
        found: Sequence[Signed[NodeRecord]] = self._directory.sample((caller, *request.have), SAMPLE)
        return PeersAnswer(tuple(one.to_bytes() for one in found))

    def _fresh(self) -> tuple[Signed[NodeRecord], Signed[Caps]]:
        now, said = time.monotonic(), self._look()
        if self._record is None or self._caps is None or said != self._said or now - self._signed_at > RENEWED_S:
            self._said, self._signed_at = said, now
            at = now_ms()
            exp = UnixMs(at + RECORD_LIFE_MS)
            self._seq = max(at, self._seq + 1)  # a clock that was set back makes no record older than the one that peers hold
            self._caps = sign(
                self._key,
                Caps(
                    iss=self._key.id, at=at, seq=self._seq, exp=exp, dev=said.devices, exec=said.executors, models=said.models, rate=said.rate,
                    slots=said.slots,
                ),
            )  # fmt: skip
            self._record = sign(
                self._key,
                NodeRecord(
                    iss=self._key.id, at=at, seq=self._seq, exp=exp, mesh=said.mesh, proto=(1,), addrs=said.addresses, udp=0, name=said.name,
                    sw=said.software, caps=self._caps.id,
                ),
            )  # fmt: skip
        return self._record, self._caps
