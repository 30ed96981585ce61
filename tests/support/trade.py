"""Two traders with real ledgers, real TLS and real proofs in one process, for tests of the market."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nexus_edge.clock import up_ms
from nexus_edge.data import demo_digits, demo_model
from nexus_edge.errors import BadInput
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import BlobStore, CreditPolicy, Ledger
from nexus_edge.market.buying import Buyer, Reachable
from nexus_edge.market.fleet import Fleet
from nexus_edge.market.membership import Membership
from nexus_edge.market.quoting import Forecast, Offer
from nexus_edge.market.requester import Requester
from nexus_edge.market.running import Answer, Order, Runner
from nexus_edge.market.serving import Serving
from nexus_edge.market.settling import Till
from nexus_edge.market.worker import Worker
from nexus_edge.proofs import HeldOpening, Model, Opening, _native, commit_model, commit_tensor, prove
from nexus_edge.proofs.answers import verify_answer
from nexus_edge.proofs.opening import commitment_of
from nexus_edge.proofs.wired import input_commitments
from nexus_edge.transport import Answering, PeerClient, PeerConnection, PeerServer
from nexus_edge.types import Bytes, Context, Digest, ModelDigest, NodeId, TensorCommitment, UnixMs
from nexus_edge.wire.digests import input_commitment
from nexus_edge.wire.messages import InputUpload, PeersAnswer
from nexus_edge.wire.objects import NodeRecord, ProofNotice, Result
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed, sign

MODEL = Model.from_tflite(demo_model(), name="digits")
KEY = commit_model(MODEL)
DIGEST = KEY.verifying_key.digest
IMAGE, LABEL = demo_digits()[0]
DATA = IMAGE.astype(np.int8).tobytes()
GIB = 2**30


class Local:
    """Models, checks and prover of one node, in its own process and threads."""

    slots = 1

    def __init__(self) -> None:
        self.pins = 0
        self.present = True
        self.spoil: Callable[[Answer], Answer] = lambda answer: answer
        self.gate = asyncio.Event()
        self.gate.set()

    def forecast(self, model: ModelDigest, params: str, sem: str) -> Forecast | None:
        if model != DIGEST or not self.present or (params, sem) != ("zk-100", "tflm"):
            return None
        return Forecast(1, 10, 1, 20, Bytes(64 * 2**20), len(DATA))

    async def commitments(self, model: ModelDigest, upload: InputUpload) -> tuple[TensorCommitment, ...]:  # noqa: ARG002
        try:
            return input_commitments(KEY.verifying_key, upload.data, upload.seed)
        except BadInput as misfit:
            raise Refusal(Code.BAD_INPUT, misfit.why) from None

    def invite(self, peer: NodeId, model: ModelDigest, params: str) -> None:
        pass

    def pin(self, _: ModelDigest) -> None:
        self.pins += 1

    def unpin(self, _: ModelDigest) -> None:
        self.pins -= 1

    async def commit(self, model: ModelDigest, data: bytes) -> tuple[Digest, InputUpload]:  # noqa: ARG002
        held = commit_tensor(MODEL.inputs[0], self._array(data))
        opening = held.read()
        return input_commitment([opening.commitment]), InputUpload(data, opening.seed.expose(), 1)

    async def verifying_key(self, model: ModelDigest) -> bytes:  # noqa: ARG002
        return KEY.verifying_key.to_bytes()

    def answer_bytes(self, model: ModelDigest) -> int:  # noqa: ARG002
        return 2**17

    async def verify(
        self,
        model: ModelDigest,
        params: str,
        inc: Digest,
        result: Result,
        notice: ProofNotice,
        output: bytes,
        proof: bytes,
        seed: bytes | None,
    ) -> None:
        verify_answer(
            KEY.verifying_key, model, params, Context(result.lease), inc, output, proof, statement=notice.stmt, outc=None, output_seed=seed
        )  # fmt: skip

    async def prove(self, order: Order, progress: Callable[[str, int], None]) -> Answer:
        progress("execute", 0)
        await self.gate.wait()
        answer = await asyncio.to_thread(self._prove, order)
        progress("open", 1_000_000)
        return self.spoil(answer)

    def _prove(self, order: Order) -> Answer:
        holder = HeldOpening(self._opening(order.upload))
        proved = prove(KEY, [self._array(order.upload.data)], context=Context(order.context), input_openings=[holder])
        return Answer(
            proved.outputs[0].tobytes(), None, proved.proof.statement.to_bytes(), proved.proof.to_bytes(), 1, int(proved.prove_ms), Bytes(1)
        )  # fmt: skip

    def _opening(self, upload: InputUpload) -> Opening:
        port = MODEL.inputs[0]
        seed = _native.Seed.load(upload.seed)
        integers = port.to_integers(self._array(upload.data))
        return Opening.fresh(port.tensor, 100, commitment_of(port.tensor, integers, 100, seed), seed)

    def _array(self, data: bytes) -> Any:
        if len(data) != len(DATA):
            raise BadInput("another size")
        return np.frombuffer(data, np.int8).reshape(MODEL.inputs[0].shape)


class Presence:
    """A record, and nobody else."""

    def __init__(self, key: NodeKey) -> None:
        self._key = key

    def record(self) -> Signed[NodeRecord]:
        record = NodeRecord(
            iss=self._key.id, at=UnixMs(1), seq=1, exp=UnixMs(2), mesh="test", proto=(1,), addrs=(), udp=0, name="", sw="", caps=Digest(bytes(32))
        )  # fmt: skip
        return sign(self._key, record)

    def caps(self) -> Any:
        raise AssertionError("nobody asks")

    def sample(self, caller: NodeId, request: object) -> PeersAnswer:  # noqa: ARG002
        return PeersAnswer(())


class Trader:
    """One node: its ledger, its port, both sides of its market."""

    def __init__(self, folder: Path, key: NodeKey, policy: CreditPolicy | None = None) -> None:
        self.folder = folder
        self.key = key
        self.policy = policy
        self.local = Local()
        self.known: dict[NodeId, tuple[str, int]] = {}
        self.away: dict[NodeId, str] = {}
        """Peers of other meshes."""
        self.available = 8 * GIB
        self.certificates: tuple[Path, ...] = ()
        self.waited_ms = 0
        """By what the node grew older at once."""

    async def start(self, port: int = 0) -> None:
        self.ledger = await Ledger.open(self.folder, self.key, self.policy, ticks=lambda: up_ms() + self.waited_ms)
        self.blobs = BlobStore(self.folder / "blobs", age_s=lambda: self.ledger.age() / 1000)
        self.client = PeerClient(self.key)
        self.worker = Worker(self.key, self.ledger, self.blobs, self.local, self._offer, lambda: self.requester.jobs)
        till = Till(self.ledger, self.worker.leases)
        self.requester = Requester(self.key, self.ledger, self.blobs, self.local, self, Buyer(self, self), till)  # type: ignore[arg-type]
        await self.worker.book.load()
        self.running = asyncio.create_task(Runner(self.worker.book, self.local).run())
        self.fleet = Fleet(self.ledger, Membership(self.key.id, self.certificates), self)
        await self.fleet.load()
        serving = Serving(self.worker, till, self.fleet, Presence(self.key), self, self._excluded)  # type: ignore[arg-type]
        self.server = PeerServer(self.key, Answering(serving, self.client))
        await self.server.start("127.0.0.1", port)
        await self.requester.load()

    async def stop(self) -> None:
        await self.requester.close()
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.server.close()
        await self.client.close()
        await self.ledger.close()

    def meets(self, *others: "Trader") -> None:
        for other in others:
            self.known[other.key.id] = ("127.0.0.1", other.server.port)

    # What the market asks of discovery and of the model store

    def up(self) -> Sequence[Reachable]:
        return [Reachable(peer, self.client.at(peer, *place), 1, True) for peer, place in self.known.items()]

    def elsewhere(self) -> Mapping[NodeId, str]:
        return self.away

    def others_answer(self, besides: NodeId) -> bool:  # noqa: ARG002
        return True

    def connection(self, peer: NodeId) -> PeerConnection | None:
        place = self.known.get(peer)
        return None if place is None else self.client.at(peer, *place)

    def _offer(self) -> Offer:
        waiting = tuple(
            Forecast(1, 10, 1, 20, Bytes(64 * 2**20), len(DATA)).demand for lease in self.worker.leases if lease.state.value == "queued"
        )  # fmt: skip
        return Offer(1000, 1, waiting, (), Bytes(self.available), 1000)

    async def _excluded(self, peer: NodeId) -> bool:
        return self.requester.workers.excludes(peer)


@contextlib.asynccontextmanager
async def traders(folder: Path, *names: str, policy: CreditPolicy | None = None) -> AsyncIterator[list[Trader]]:
    """Started traders who know each other."""
    found = [Trader(folder / name, NodeKey.from_seed(name.encode().ljust(32, b".")), policy) for name in names]
    for one in found:
        await one.start()
    for one in found:
        one.meets(*(other for other in found if other is not one))
    try:
        yield found
    finally:
        for one in found:
            await one.stop()
