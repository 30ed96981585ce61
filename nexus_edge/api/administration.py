"""The agent as its administrators see it: `AgentView` over the parts of a running node."""

import asyncio
import math
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import structlog

from nexus_edge.api import shown, words
from nexus_edge.api.models import (
    ENDED,
    AttentionView,
    Audit,
    CreditView,
    DeedRequest,
    DeedView,
    DeviceView,
    DrainRequest,
    GrantRequest,
    IntegrityView,
    JobView,
    LedgerView,
    ModelView,
    NodeState,
    NodeView,
    PeerView,
    ProofView,
    RunRequest,
    Snapshot,
    Today,
    WorkView,
)
from nexus_edge.clock import now_ms
from nexus_edge.compute import Load, ModelLibrary, Pool, memory_available
from nexus_edge.compute.machine import memory_total
from nexus_edge.discovery import Peer, PeerDirectory
from nexus_edge.errors import IdentityError, JobFailed, LedgerError, UsageError
from nexus_edge.identity import NodeKey, format_node_id, parse_node_id, short_id
from nexus_edge.ledger import Book, Ledger, Member
from nexus_edge.ledger.deeds import Deed, What, carry_out
from nexus_edge.market.jobs import Outcome
from nexus_edge.market.leases import State
from nexus_edge.market.membership import Membership
from nexus_edge.market.ordering import Order
from nexus_edge.market.requester import Requester
from nexus_edge.market.worker import Worker
from nexus_edge.market.workshop import Workshop
from nexus_edge.proofs.arrays import format_tensors, parse_tensors
from nexus_edge.proofs.ports import to_integers
from nexus_edge.proofs.wired import read_tensors, without_float_edges
from nexus_edge.types import Bytes, Digest, JobId, MicroCredits, ModelDigest, NodeId, UnixMs
from nexus_edge.wire.objects import ProofNotice, Result

log = structlog.get_logger("admin")

PARAMS: Final = "zk-100"
CHECK_S: Final = 60.0
"""Between two checks of the whole ledger for snapshots."""
SHOWN: Final = 40
"""Jobs in a snapshot: a screen and a bit."""
ENTRIES: Final = 200
RECENT_MS: Final = 86_400_000
"""How long something that went wrong asks for attention."""
DISK_LOW: Final = 16 << 20
"""Bytes without which hardly a job can be written down: the largest input has as many."""


@dataclass(frozen=True)
class Node:
    """What does not change while it runs."""

    key: NodeKey
    name: str
    mesh: str
    version: str
    listen: str
    max_price: MicroCredits
    deadline_ms: int


@dataclass
class Administration:
    """Shows the parts, and changes them."""

    node: Node
    books: Ledger
    directory: PeerDirectory
    requester: Requester
    worker: Worker
    library: ModelLibrary
    workshop: Workshop
    pool: Pool
    load: Load
    membership: Membership
    stop: Callable[[], None]
    _began: float = field(default_factory=time.monotonic)
    _started: UnixMs = field(default_factory=now_ms)
    _seq: int = 0
    _checked: IntegrityView | None = None
    _check_at: float = 0.0
    """When snapshots check the ledger again, on the monotonic clock."""
    _checking: "asyncio.Task[None] | None" = None
    _draining: "asyncio.Task[None] | None" = None

    # What is shown

    async def snapshot(self) -> Snapshot:
        """Everything at a glance."""
        self._seq += 1
        jobs = self._jobs()
        books, members = await self.books.read(lambda reader: (reader.books(), reader.members()))
        peers = self._peers(books, members)
        if self._checked is None:
            await self._check()
        elif time.monotonic() >= self._check_at:
            # Beside what is shown: it takes seconds where much has happened, and one at a time is enough.
            self._check_at = math.inf
            self._checking = asyncio.create_task(self._check_again(), name="check the ledger")
        groups = self.books.policy.groups
        return Snapshot(
            seq=self._seq,
            at=shown.moment(now_ms()),
            node=self._node(peers),
            today=await self._today(),
            devices=self._devices(),
            work=_work(jobs, None if self.worker.letting.draining else self.worker.outlook().free_ms),
            jobs=tuple(sorted(jobs, key=lambda job: (job.ended, -job.asked_at.timestamp()))[:SHOWN]),
            credit=await self._credit(books),
            ledger=self._checked,
            peers=shown.peers_summary(peers),
            fleets=tuple(shown.fleet_view(group, members.values(), books) for group in groups),
            certificates=tuple(shown.certificate_view(own, problem, groups) for own, problem in self.membership.states()),
            attention=self._attention(jobs, peers),
        )

    async def jobs(self) -> tuple[JobView, ...]:
        """All jobs, newest first."""
        return tuple(self._jobs())

    async def job(self, job: str) -> JobView:
        """One job, and what the worker signed about it."""
        view = self._find(job)
        ours = self.requester.jobs.get(bytes.fromhex(view.id))
        if ours is None or not ours.attempts or ours.attempt.result is None or ours.attempt.notice is None:
            return view
        kept = ours.attempt.result, ours.attempt.notice
        result, notice = await self.books.read(lambda reader: (reader.object(kept[0]).of(Result), reader.object(kept[1]).of(ProofNotice)))
        said = {
            "run_ms": float(result.object.run_ms),
            "prove_ms": float(notice.object.prove_ms),
            "proof_bytes": Bytes(notice.object.len),
        }
        return view.model_copy(update=said)

    async def output(self, job: str) -> bytes:
        """The verified answer of a job of ours, as a file."""
        found = self.requester.jobs.get(bytes.fromhex(self._find(job).id))
        if found is None or found.phase not in shown.ANSWERED or found.attempt.output is None:
            raise JobFailed("there is no answer", "the job is not one that was verified here")
        content = await self.requester.blobs.get(found.attempt.output)
        if content is None:
            raise JobFailed("there is no answer any more", "its file is gone")
        key = await self.workshop.key(found.model)
        integers = read_tensors(without_float_edges(key).outputs, content, "output")
        arrays = [port.from_integers(array) for port, array in zip(key.outputs, integers, strict=True)]
        return format_tensors(key.outputs, arrays)

    async def peers(self) -> tuple[PeerView, ...]:
        """All peers."""
        return self._peers(*await self.books.read(lambda reader: (reader.books(), reader.members())))

    async def proofs(self) -> tuple[ProofView, ...]:
        """All proofs, newest first."""
        jobs = [job for job in self._jobs() if job.proof is not None]
        short = shown.abbreviated((job.proof or "" for job in jobs), "p")
        sizes: dict[str, int] = {}
        for job in jobs:
            sizes[job.proof or ""] = await self.requester.blobs.size(Digest(bytes.fromhex(job.proof or ""))) or 0
        bits = {job.digest: await self._bits(ModelDigest(bytes.fromhex(job.digest))) for job in jobs}
        reruns = {job.digest: self._rerun_ms(ModelDigest(bytes.fromhex(job.digest))) for job in jobs}
        held = {name: size for name, size in sizes.items() if size}
        found = (shown.proof_of(job, short, held, bits[job.digest], reruns[job.digest]) for job in jobs)
        return tuple(proof for proof in found if proof is not None)

    async def ledger(self) -> LedgerView:
        """The books and the newest entries."""
        names = self._names()
        books = await self.books.read(lambda reader: reader.books())
        lines = await self.books.read(lambda reader: reader.lines(ENTRIES))
        return LedgerView(
            integrity=await self._check(),
            net_ucr=MicroCredits(sum(book.owed for book in books)),
            books=tuple(shown.book_view(book, names) for book in books),
            entries=tuple(shown.entry_view(line, self.node.key.id, names) for line in lines),
        )

    async def _check(self) -> IntegrityView:
        """All of the ledger: snapshots have it again after a minute, or so long after that it takes a hundredth of the time."""
        began = time.monotonic()
        self._checked = shown.integrity_view(await self.books.verify(), now_ms())
        took = time.monotonic() - began
        self._check_at = began + max(CHECK_S, 100 * took)
        return self._checked

    async def _check_again(self) -> None:
        try:
            await self._check()
        except LedgerError as failed:
            log.error("the ledger cannot be checked", reason=str(failed))
            self._check_at = time.monotonic() + CHECK_S

    # What is changed

    async def import_model(self, content: AsyncIterator[bytes], name: str) -> ModelView:
        """Bring a model, to stay."""
        record = await self.library.import_content(content, PARAMS, name)
        return ModelView(digest=record.model.hex(), name=record.name, semantics=record.semantics, params=record.params)

    async def submit(self, request: RunRequest) -> JobView:
        """Begin a job."""
        model = ModelDigest(bytes.fromhex(request.model))
        record = self.workshop.record(model)
        if record is None:
            raise UsageError("the model is not here", f"no model has the digest {model.hex()}", "bring its file")
        key = await self.workshop.key(model)
        arrays = await asyncio.to_thread(parse_tensors, request.input, Path("the input"), key.inputs, "input")
        data = b"".join(np.ascontiguousarray(array).tobytes() for array in to_integers(key.inputs, arrays))
        worker = None if request.worker is None else self._peer(request.worker)
        order = Order(
            model=model,
            sem=record.semantics,
            params=record.params,
            data=data,
            max_price=request.max_price_ucr or self.node.max_price,
            deadline_ms=request.deadline_ms or self.node.deadline_ms,
            worker=worker,
        )
        job = await self.requester.submit(order)
        return self._find(job.id.hex())

    async def cancel(self, job: str) -> JobView:
        """Stop a job of ours."""
        found = JobId(bytes.fromhex(self._find(job).id))
        if self.requester.jobs.get(found) is None:
            raise UsageError("the job cannot be cancelled", "it is a peer's: the peer can cancel it")
        await self.requester.cancel(found)
        return self._find(job)

    async def grant(self, request: GrantRequest) -> str:
        """Set what is lent to a peer."""
        peer = self._peer(request.peer)
        await self.books.transact("grant", lambda transaction: transaction.grant(peer, request.amount_ucr))
        return f"{short_id(peer)} may draw {request.amount_ucr / 1_000_000:.4f} cr beyond what it earns"

    async def deed(self, request: DeedRequest) -> DeedView:
        """Write down what owners settled; an entry leaves at once if the peer is up."""
        peer = self._peer(request.peer)
        deed = Deed(What(request.what), peer, request.amount_ucr, request.about)
        done = await self.books.transact("deed", partial(carry_out, deed))
        if done.entry is not None:
            self.requester.payer.wake(peer)
        entry = None if done.entry is None else done.entry.hex()
        return DeedView(what=request.what, peer=self._names().of(peer), amount_ucr=done.amount, entry=entry, again=done.again)

    async def drain(self, request: DrainRequest) -> str:
        """Stop or resume taking work."""
        self.worker.letting.draining = request.on
        if self._draining is not None:
            self._draining.cancel()
            self._draining = None
        if not request.on:
            return "new work is taken again"
        if request.stop:
            self._draining = asyncio.create_task(self._stop_when_drained(), name="drain")
        left = self._unfinished()
        return f"no new work is taken; {left} {'job finishes' if left == 1 else 'jobs finish'} first"

    async def shutdown(self) -> str:
        """Begin to stop."""
        asyncio.get_running_loop().call_later(0.05, self.stop)  # after the answer has left
        return "stopping; what is open goes on after the next start"

    async def audit(self, audit: Audit) -> None:
        """Keep who asked for what."""
        who = f"uid {audit.uid}, pid {audit.pid}"
        await self.books.transact("audit", lambda transaction: transaction.audit(who, audit.action, f"{audit.id} {audit.subject}"))

    # Parts

    def _jobs(self) -> list[JobView]:
        names, now = self._names(), time.monotonic()
        work, left_ms = self.worker.book.work, self.worker.outlook().left_ms
        ids = [job.id.hex() for job in self.requester.jobs] + [lease.job.hex() for lease in self.worker.leases]
        short = shown.abbreviated(ids, "j")
        models = {record.model: record.name for record in self.library.records()}
        views = [
            shown.job_of_ours(job, self.requester.live.get(job.id), short[job.id.hex()], models.get(job.model, ""), names, now)
            for job in self.requester.jobs
        ]
        views += [
            shown.job_for_peer(lease, work.get(lease.id), short[lease.job.hex()], models.get(lease.model, ""), names, left_ms.get(lease.id))
            for lease in self.worker.leases
        ]
        return sorted(views, key=lambda job: job.asked_at, reverse=True)

    def _find(self, job: str) -> JobView:
        wanted = job.removeprefix("j-").lower()
        found = [one for one in self._jobs() if wanted and one.id.startswith(wanted)]
        if len(found) != 1:
            raise UsageError("no such job" if not found else "several jobs have this beginning", repr(job), "`nexus-edge jobs` lists them")
        return found[0]

    def _peers(self, books: Sequence[Book], members: Mapping[NodeId, Member]) -> tuple[PeerView, ...]:
        names = self._names()
        of_peer = {book.peer: book for book in books}
        jobs = list(self.requester.jobs)
        return tuple(
            shown.peer_view(
                peer, names, of_peer.get(peer.id), members.get(peer.id), jobs, excluded=self.requester.workers.excludes(peer.id)
            )
            for peer in sorted(self.directory.snapshot(), key=lambda one: (one.state.value != "up", one.rtt_ms or 0, one.id))
        )

    def _peer(self, text: str) -> NodeId:
        """The peer that a person names: by id, by the beginning of it, or by its name here."""
        try:
            return parse_node_id(text)
        except IdentityError:
            wanted = text.replace("-", "").lower()
        names = self._names()
        rows: list[Peer] = list(self.directory.snapshot())
        found = [
            peer.id for peer in rows if names.of(peer.id).name == text or (len(wanted) >= 4 and format_node_id(peer.id).replace("-", "").startswith(wanted))
        ]  # fmt: skip
        if len(found) != 1:
            raise UsageError("no such peer" if not found else "several peers are named so", repr(text), "`nexus-edge peers` lists them")
        return found[0]

    def _names(self) -> shown.Names:
        return shown.Names(self.directory.snapshot(), self.node.name)

    async def _bits(self, model: ModelDigest) -> float | None:
        if self.workshop.record(model) is None:
            return None
        return float((await self.workshop.key(model)).soundness()["bits"])

    def _trouble(self) -> str:
        """What keeps this node from writing down what it owes and is owed."""
        if self._checked is not None and not self._checked.sound:
            return f"the ledger: {self._checked.faults[0]}"
        left = shutil.disk_usage(self.books.path.parent).free
        return f"the disk is full: {words.size(left)} are left where the ledger is" if left < DISK_LOW else ""

    def _node(self, peers: Sequence[PeerView]) -> NodeView:
        state: NodeState = "ready"
        why = self._trouble()
        if why:
            state = "degraded"
        elif self.worker.letting.draining:
            state = "draining" if self._unfinished() else "drained"
        elif any(work.phase for lease, work in self.worker.book.work.items() if self.worker.leases[lease].state.is_open):
            state = "serving"
        elif not any(peer.state == "up" for peer in peers):
            state, why = "alone", "no peer answers"
        return NodeView(
            id=format_node_id(self.node.key.id),
            short_id=short_id(self.node.key.id),
            name=self.node.name,
            version=self.node.version,
            state=state,
            why=why,
            started_at=shown.moment(self._started),
            uptime_ms=int(1000 * (time.monotonic() - self._began)),
            mesh=self.node.mesh,
            listen=self.node.listen,
        )

    async def _today(self) -> Today:
        midnight = UnixMs(int(datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0).timestamp() * 1000))
        earned, spent = await self.books.read(lambda reader: reader.sums_since(midnight))
        ours = [job for job in self.requester.jobs if (job.ended or job.at) >= midnight]
        verified = [job for job in ours if job.phase in shown.ANSWERED]
        leases = [lease for lease in self.worker.leases if lease.delivered is not None and lease.delivered >= midnight]
        measured = [self._rerun_ms(job.model) for job in verified]
        reruns = [ms if ms is not None else job.attempt.run_ms for ms, job in zip(measured, verified, strict=True)]
        return Today(
            proved=len(leases),
            verified_by_peers=sum(lease.state is State.SETTLED for lease in leases),
            on_their_way=sum(lease.state is State.UNPAID for lease in leases),
            verified=len(verified),
            refused=sum(attempt.outcome is Outcome.INVALID for job in ours for attempt in job.attempts),
            verify_ms=float(sum(job.verify_ms for job in verified)),
            rerun_ms=float(sum(reruns)) if reruns else None,
            rerun_measured=bool(reruns) and None not in measured,
            earned_ucr=MicroCredits(earned),
            spent_ucr=MicroCredits(spent),
        )

    def _rerun_ms(self, model: ModelDigest) -> float | None:
        """What a run takes on this machine; None for a model that is not here any more."""
        return None if self.library.get(model) is None else self.library.forecast(model).run_us / 1000

    def _devices(self) -> tuple[DeviceView, ...]:
        total = memory_total()
        used = Bytes(max(0, total - memory_available()))
        samples = self.load.samples
        machine = DeviceView(
            id="", kind="", name="", load=samples[-1] if samples else None, history=samples, memory_used=used, memory_total=total
        )
        return tuple(
            machine.model_copy(update={"id": device.id, "kind": device.kind, "name": device.name, "cores": device.cores})
            for device in self.pool.devices
        )

    async def _credit(self, books: Sequence[Book]) -> CreditView:
        promised, today = await self.books.read(lambda reader: reader.promised())
        return CreditView(
            net_ucr=MicroCredits(sum(book.owed for book in books)),
            owed_to_us_ucr=MicroCredits(sum(max(0, book.owed) for book in books)),
            owed_by_us_ucr=MicroCredits(sum(max(0, -book.owed) for book in books)),
            reserved_ucr=MicroCredits(sum(book.reserved_out for book in books)),
            at_stake_ucr=MicroCredits(sum(book.locked for book in books)),
            spend_open_left_ucr=MicroCredits(max(0, self.books.policy.spend_open - promised)),
            spend_day_left_ucr=MicroCredits(max(0, self.books.policy.spend_day - today)),
        )

    def _attention(self, jobs: Sequence[JobView], peers: Sequence[PeerView]) -> tuple[AttentionView, ...]:
        now = now_ms()
        found = []
        for job in self.requester.jobs:
            for attempt in job.attempts:
                if attempt.outcome is Outcome.INVALID and now - job.at < RECENT_MS:
                    name = self._names().of(attempt.worker)
                    text = f"false proof from {name.name or name.short_id}: {attempt.reason}. Its answer was not used, nothing was paid, and what it signed is kept."
                    found.append(AttentionView(at=shown.moment(job.at), level="error", text=text, about=job.id.hex()))
        found += [
            AttentionView(at=job.ended_at or job.asked_at, level="warning", text=f"{job.short_id} failed: {job.reason}", about=job.id)
            for job in jobs
            if job.state == "failed" and now - int(1000 * job.asked_at.timestamp()) < RECENT_MS
        ]
        trouble = self._trouble()
        if trouble:
            found.append(AttentionView(at=shown.moment(now), level="error", text=trouble, about="ledger"))
        for peer in peers:
            if peer.state == "up":
                at = peer.last_seen or shown.moment(now)
                found += [AttentionView(at=at, level="warning", text=text, about=peer.id) for text in shown.troubles(peer)]
        found += [
            AttentionView(at=shown.moment(now), level="warning", text=f"the group certificate {own.file.name}: {problem}", about="fleet")
            for own, problem in self.membership.states()
            if problem
        ]
        return tuple(sorted(found, key=lambda one: one.at, reverse=True)[:SHOWN])

    def _unfinished(self) -> int:
        leases = sum(lease.state.is_open for lease in self.worker.leases)
        return leases + sum(not job.phase.is_final for job in self.requester.jobs)

    async def _stop_when_drained(self) -> None:
        while self._unfinished():
            await asyncio.sleep(0.2)
        self.stop()


def _work(jobs: Sequence[JobView], next_free_ms: int | None) -> WorkView:
    return WorkView(
        running=sum(job.state == "running" for job in jobs),
        waiting=sum(job.state == "waiting" for job in jobs),
        due=sum(job.state == "due" for job in jobs),
        done=sum(job.state in ENDED for job in jobs),
        next_free_ms=next_free_ms,
    )
