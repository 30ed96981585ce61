"""A small agent behind a real admin socket: it has one peer, one proof and the jobs that it is asked for."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from nexus_edge.api.admin import AdminServer
from nexus_edge.api.models import (
    AttentionView,
    Audit,
    BookView,
    CreditView,
    DeedRequest,
    DeedView,
    DeviceView,
    DrainRequest,
    EntryView,
    GrantRequest,
    IntegrityView,
    JobView,
    LedgerView,
    ModelView,
    NodeView,
    PeerRef,
    PeersSummary,
    PeerView,
    ProofView,
    RunRequest,
    Snapshot,
    StepView,
    Today,
    WorkView,
)
from nexus_edge.errors import JobFailed, UsageError
from nexus_edge.types import Bytes, MicroCredits

NOON = datetime(2025, 10, 3, 12, 4, 11, tzinfo=UTC)
RACK = PeerRef(id="m7qax2k-" * 7 + "eabcdef", short_id="m7qax2k", name="rack-2")
HUT = PeerRef(id="h8gdaaa-" * 7 + "eabcdef", short_id="h8gdaaa")
JOB = "4f2a" + 28 * "0"


def ucr(amount: int) -> MicroCredits:
    return MicroCredits(amount)


def a_job(**changes: Any) -> JobView:
    job = JobView(
        id=JOB, short_id="j-4f2a", asked_at=NOON, model="mobilenet_v2", digest="8c1e2f90" + 56 * "0", direction="for", peer=RACK,
        state="running", phase="prove", fraction=0.67, eta_ms=1300, price_ucr=ucr(31_000),
        timeline=(StepView(phase="execute", state="done", ms=96), StepView(phase="prove", state="running", ms=2600, forecast_ms=3900)),
    )  # fmt: skip
    return job.model_copy(update=changes)


def a_snapshot(**changes: Any) -> Snapshot:
    snapshot = Snapshot(
        seq=1,
        at=NOON,
        node=NodeView(
            id="k3f97qt-" * 7 + "mabcdef", short_id="k3f97qt", name="attic", version="0.3.0", state="serving", started_at=NOON,
            uptime_ms=76 * 3_600_000, mesh="home", listen="0.0.0.0:7411",
        ),
        today=Today(
            proved=41, verified_by_peers=39, on_their_way=2, verified=17, refused=1, verify_ms=130, rerun_ms=28_900, rerun_measured=True,
            earned_ucr=ucr(481_700), spent_ucr=ucr(556_000),
        ),
        devices=(
            DeviceView(id="cpu0", kind="cpu", name="8 cores", cores=8, load=0.94, memory_used=Bytes(10_522_669_875), memory_total=Bytes(33_500_744_908)),
        ),
        work=WorkView(running=2, waiting=1, done=58, next_free_ms=1000),
        jobs=(a_job(),),
        credit=CreditView(net_ucr=ucr(2_280_000)),
        ledger=IntegrityView(sound=True, first=1, last=18_205, checked_at=NOON),
        peers=PeersSummary(online=10, both_ways=9, one_way=1),
        attention=(AttentionView(at=NOON, level="error", text="false proof from hut h8gdaaa, refused", about="p-77d0"),),
    )  # fmt: skip
    return snapshot.model_copy(update=changes)


@dataclass
class SmallAgent:
    """What it is asked is on record in its lists."""

    audits: list[Audit] = field(default_factory=list)
    requests: list[RunRequest] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    steps: list[JobView] = field(default_factory=list)
    """What `job` answers, one after the other; the last one stays."""
    refuses: Exception | None = None
    padding: str = ""
    """Makes snapshots large."""
    snapshots: int = 0
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def snapshot(self) -> Snapshot:
        self._refuse()
        self.snapshots += 1
        return a_snapshot(seq=self.snapshots, attention=(AttentionView(at=NOON, level="warning", text=self.padding),))

    async def jobs(self) -> tuple[JobView, ...]:
        self._refuse()
        return (a_job(), a_job(id="5e" + 30 * "0", short_id="j-5e00", direction="by", peer=HUT, state="refused", phase="", fraction=None,
                               eta_ms=None, price_ucr=None, reason="lookup sum"))  # fmt: skip

    async def job(self, job: str) -> JobView:
        self._refuse()
        if not job.startswith(("j-4f2a", JOB)):
            raise UsageError("there is no such job", job, "`nexus-edge jobs` lists them")
        return self.steps.pop(0) if len(self.steps) > 1 else self.steps[0] if self.steps else a_job()

    async def output(self, job: str) -> bytes:
        if self.steps and not self.steps[-1].answered:
            raise JobFailed("there is no answer", job)
        return b"\x93NUMPY of " + job.encode()

    async def peers(self) -> tuple[PeerView, ...]:
        return (
            PeerView(id=RACK.id, short_id=RACK.short_id, name="rack-2", state="up", has="CPU 8 cores", found_by=("mdns",), rtt_ms=2.1,
                     reach="both", verified=212, given=212, balance_ucr=ucr(840_000), limit_ucr=ucr(2_000_000), last_seen=NOON, fleet="home",
                     fleet_until=NOON + timedelta(days=30)),
            PeerView(id=HUT.id, short_id=HUT.short_id, state="excluded", reach="none", verified=3, given=4, problem="false proof"),
        )  # fmt: skip

    async def proofs(self) -> tuple[ProofView, ...]:
        return (
            ProofView(id="9c41" + 60 * "0", short_id="p-9c41", job="j-4f1e", model="kws", digest="aa" * 32, direction="for", peer=RACK,
                      state="verified", at=NOON, prove_ms=38, verify_ms=2.2, of_rerun=1.05, bytes=Bytes(287_000), bits=100.3),
            ProofView(id="77d0" + 60 * "0", short_id="p-77d0", job="j-5e00", model="vww", digest="bb" * 32, direction="by", peer=HUT,
                      state="refused", at=NOON, verify_ms=0.4, reason="lookup sum"),
        )  # fmt: skip

    async def ledger(self) -> LedgerView:
        entry = EntryView(
            n=7, id="ab" * 32, at=NOON, kind="job", peer=RACK, ref="cd" * 32, amount_ucr=ucr(31_000), total_ucr=ucr(62_000), signed="both"
        )
        book = BookView(peer=RACK, balance_ucr=ucr(840_000), limit_ucr=ucr(2_000_000))
        return LedgerView(
            integrity=IntegrityView(sound=True, first=1, last=7, checked_at=NOON), net_ucr=ucr(840_000), books=(book,), entries=(entry,)
        )

    async def import_model(self, content: AsyncIterator[bytes], name: str) -> ModelView:
        assert self.audits, "a change is on record before it is made"
        digest = hashlib.sha256()
        async for piece in content:
            digest.update(piece)
        self._refuse()
        return ModelView(digest=digest.hexdigest(), name=name, semantics="tflm", params="zk-100")

    async def submit(self, request: RunRequest) -> JobView:
        assert self.audits, "a change is on record before it is made"
        self._refuse()
        self.requests.append(request)
        return a_job(direction="by", state="waiting", phase="", fraction=None)

    async def cancel(self, job: str) -> JobView:
        self.asked.append(f"cancel {job}")
        return a_job(state="cancelled", ended_at=NOON + timedelta(seconds=1))

    async def grant(self, request: GrantRequest) -> str:
        self.asked.append(f"grant {request.peer} {request.amount_ucr}")
        return "granted"

    async def deed(self, request: DeedRequest) -> DeedView:
        self.asked.append(f"{request.what} {request.peer} {request.amount_ucr} {request.about}")
        return DeedView(what=request.what, peer=RACK, amount_ucr=request.amount_ucr or ucr(7), entry=None)

    async def drain(self, request: DrainRequest) -> str:
        self.asked.append(f"drain {request.on} {request.stop}")
        return "draining"

    async def shutdown(self) -> str:
        self.stopped.set()
        return "stopping"

    async def audit(self, audit: Audit) -> None:
        self.audits.append(audit)

    def _refuse(self) -> None:
        if self.refuses is not None:
            raise self.refuses


@asynccontextmanager
async def serving(path: Path, agent: SmallAgent | None = None, **options: Any) -> AsyncIterator[SmallAgent]:
    """The agent on its socket."""
    agent = agent or SmallAgent()
    async with AdminServer(agent, path, **options):
        yield agent
