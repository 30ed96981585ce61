"""What the agent shows and takes: frozen models, the same on both sides of the admin socket and behind `--json`.

Money is in micro-credits (`_ucr`), durations in milliseconds (`_ms`), sizes in bytes, moments in UTC (RFC 3339), fractions in [0, 1]. What
is not known is null, never zero.
"""

from datetime import datetime
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from nexus_edge.types import Bytes, MicroCredits


def _utc(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


Moment = Annotated[AwareDatetime, PlainSerializer(_utc, when_used="json")]
Amount = Annotated[MicroCredits, Field(strict=True)]
"""Micro-credits. With a sign where the field says so."""
Ppm = Annotated[int, Field(ge=0, le=1_000_000)]
Fraction = Annotated[float, Field(ge=0, le=1)]

Direction = Literal["for", "by", "own"]
"""`for`: we work and earn; `by`: they work, we pay; `own`: done here for ourselves."""
JobState = Literal["waiting", "running", "due", "verified", "refused", "failed", "cancelled", "proved"]
DeedKind = Literal["expect", "prepay", "refund", "write-off"]
"""Paid elsewhere, and an entry is to come; paid to us elsewhere, and owed from now on; given back; given up."""
StepState = Literal["pending", "running", "done", "failed"]
NodeState = Literal["starting", "ready", "serving", "draining", "drained", "alone", "degraded", "stopping"]

ENDED: frozenset[JobState] = frozenset({"verified", "refused", "failed", "cancelled", "proved"})
"""States of a job in which its answer is there, or will not come."""


class View(BaseModel):
    """Something that is shown. What a newer agent adds is passed over by an older client."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Request(BaseModel):
    """Something that is asked for. What is not understood is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class PeerRef(View):
    """Which peer."""

    id: str
    """The whole id, with check characters."""
    short_id: str
    name: str = ""
    """Empty unless it is this peer's alone here."""


class NodeView(View):
    """The node itself."""

    id: str
    short_id: str
    name: str = ""
    version: str
    state: NodeState
    why: str = ""
    """Of a state that is not as it should be."""
    started_at: Moment
    uptime_ms: int
    mesh: str
    listen: str


class Today(View):
    """Counts since local midnight, from the ledger: a restart changes nothing."""

    proved: int = 0
    """Proofs made for peers."""
    verified_by_peers: int = 0
    on_their_way: int = 0
    verified: int = 0
    """Proofs of peers that were verified here."""
    refused: int = 0
    verify_ms: float = 0
    rerun_ms: float | None = None
    """What running the verified jobs again would have taken."""
    rerun_measured: bool = False
    """Whether that was measured on this machine, or is estimated."""
    earned_ucr: Amount = MicroCredits(0)
    spent_ucr: Amount = MicroCredits(0)


class DeviceView(View):
    """Something that jobs run on."""

    id: str
    kind: str
    name: str
    cores: int | None = None
    load: Fraction | None = None
    history: tuple[Fraction, ...] = ()
    """Its load, one sample every two seconds of the last two minutes, the newest last. Parts of one processor show all of it."""
    memory_used: Bytes | None = None
    memory_total: Bytes | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    power_limit_w: float | None = None


class StepView(View):
    """One phase of a job."""

    phase: str
    state: StepState
    ms: float | None = None
    """How long it took, or has taken so far."""
    forecast_ms: float | None = None
    who: str = ""


class ModelView(View):
    """A model that is here."""

    digest: str
    """64 hexadecimal digits: of the program, its weights and the parameter set."""
    name: str
    semantics: str
    """Whose kernels it computes as, bit for bit."""
    params: str


class JobView(View):
    """A job."""

    id: str
    """32 hexadecimal digits: the same in logs, receipts and at the peer."""
    short_id: str
    """`j-` and as many of them as no other job here begins with, at least four."""
    asked_at: Moment
    model: str
    digest: str
    direction: Direction
    peer: PeerRef | None = None
    mode: Literal["proved", "deferred", "sampled"] = "proved"
    state: JobState
    phase: str = ""
    fraction: Fraction | None = None
    """Of the phase, or of the whole job if the phase is empty."""
    eta_ms: int | None = None
    """Until the worker has done it, as it forecasts from how far it is; null where there is nothing to base that on."""
    price_ucr: Amount | None = None
    """What it costs or earns. Null before a worker is chosen."""
    run_ms: float | None = None
    prove_ms: float | None = None
    verify_ms: float | None = None
    proof: str | None = None
    """The proof's id."""
    proof_bytes: Bytes | None = None
    entry: str | None = None
    """The id of the ledger entry that pays it."""
    settled: bool = False
    """Whether both sides have signed."""
    answered: bool = False
    """Whether there is an output to fetch."""
    reason: str = ""
    """Why it failed or waits."""
    reasons: tuple[str, ...] = ()
    """Why not elsewhere: one line for each candidate that did not get it."""
    timeline: tuple[StepView, ...] = ()
    ended_at: Moment | None = None

    @property
    def ended(self) -> bool:
        """Whether its answer is there, or will not come."""
        return self.state in ENDED


class PeerView(View):
    """A peer."""

    id: str
    short_id: str
    name: str = ""
    state: Literal["new", "up", "suspect", "down", "excluded"]
    has: str = ""
    """What it says it runs on."""
    found_by: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    rtt_ms: float | None = None
    skew_ms: int | None = None
    """How far its clock is ahead of ours."""
    reach: Literal["both", "out", "in", "none"] = "none"
    reputation: Fraction | None = None
    verified: int = 0
    """Its proofs that were verified here."""
    given: int = 0
    """Its proofs that were received here."""
    balance_ucr: Amount = MicroCredits(0)
    """What it owes us; negative: what we owe it."""
    limit_ucr: Amount = MicroCredits(0)
    """What it may owe us for its own sake; of a member of a fleet, all of the fleet together: 2^53 - 1 if there is no bound."""
    fleet: str = ""
    """The fleet of ours that it belongs to: its name, or the beginning of its key."""
    fleet_until: Moment | None = None
    """When its certificate ends."""
    last_seen: Moment | None = None
    one_way: str = ""
    """Why it cannot reach us, as it says."""
    problem: str = ""


class PeersSummary(View):
    """Peers, counted."""

    online: int = 0
    both_ways: int = 0
    one_way: int = 0
    excluded: int = 0


class ProofView(View):
    """A proof, made or received."""

    id: str
    short_id: str
    job: str
    model: str
    digest: str
    direction: Direction
    peer: PeerRef | None = None
    state: Literal["proving", "proved", "verified", "refused"]
    at: Moment | None = None
    prove_ms: float | None = None
    verify_ms: float | None = None
    of_rerun: float | None = None
    """Verifying over running again; above one for tiny models."""
    bytes: Bytes | None = None
    bits: float | None = None
    reason: str = ""


class EntryView(View):
    """An entry of the ledger as this node sees it."""

    n: int
    id: str
    at: Moment
    kind: str
    peer: PeerRef
    ref: str = ""
    """What it pays for."""
    amount_ucr: Amount
    """Positive: it earned us that; negative: we owe that for it."""
    total_ucr: Amount
    """Sum of the chain it is in."""
    signed: Literal["both", "ours", "theirs"]


class BookView(View):
    """How we stand with one peer."""

    peer: PeerRef
    balance_ucr: Amount
    """What it owes us; negative: what we owe it."""
    limit_ucr: Amount
    """As of a peer."""
    fleet: str = ""
    fleet_until: Moment | None = None
    granted_ucr: Amount = MicroCredits(0)
    reserved_in_ucr: Amount = MicroCredits(0)
    reserved_out_ucr: Amount = MicroCredits(0)
    at_stake_ucr: Amount = MicroCredits(0)
    disputed: bool = False


class IntegrityView(View):
    """What the last check of the ledger found."""

    sound: bool
    first: int | None = None
    last: int | None = None
    checked_at: Moment
    faults: tuple[str, ...] = ()


class LedgerView(View):
    """The books. Entries are the newest ones, newest first."""

    integrity: IntegrityView
    net_ucr: Amount
    """What all peers owe us less what we owe them."""
    books: tuple[BookView, ...] = ()
    entries: tuple[EntryView, ...] = ()


class CreditView(View):
    """Money at a glance."""

    net_ucr: Amount = MicroCredits(0)
    owed_to_us_ucr: Amount = MicroCredits(0)
    owed_by_us_ucr: Amount = MicroCredits(0)
    reserved_ucr: Amount = MicroCredits(0)
    """Promised for own jobs that are not paid yet."""
    at_stake_ucr: Amount = MicroCredits(0)
    spend_open_left_ucr: Amount | None = None
    spend_day_left_ucr: Amount | None = None


class FleetView(View):
    """A fleet that this node serves as its own."""

    key: str
    """The id of its owner's key."""
    name: str
    """Or the beginning of the key."""
    members: int
    """Nodes that showed a certificate which has not ended."""
    line_ucr: Amount | None = None
    """What they may owe together; null: there is no bound."""
    exposure_ucr: Amount = MicroCredits(0)
    """What is lost if none of them ever pays."""


class CertificateView(View):
    """A certificate that names this node."""

    file: str
    key: str = ""
    """The id of the fleet's key; empty if the file was never read."""
    name: str = ""
    """What this node calls the fleet if it serves it, else the beginning of the key."""
    until: Moment | None = None
    problem: str = ""
    """Why it does not hold, or that it ends within three days."""


class ReputationView(View):
    """What peers think of this node: comes with the exchange of vouches."""

    median: Fraction
    peers: int
    change: float
    days: int


class AttentionView(View):
    """Something that costs money, trust or work."""

    at: Moment
    level: Literal["error", "warning"]
    text: str
    about: str = ""
    """The id of a job, proof or peer, or a page."""


class EndpointView(View):
    """Where agents and people reach this node."""

    name: str
    url: str


class WorkView(View):
    """Jobs, counted."""

    running: int = 0
    waiting: int = 0
    due: int = 0
    done: int = 0
    next_free_ms: int | None = None
    """Until one more job could begin here: 0 if at once, null while none is taken or nobody can tell."""


class Snapshot(View):
    """Everything at a glance, once a second."""

    seq: int
    at: Moment
    node: NodeView
    today: Today
    devices: tuple[DeviceView, ...] = ()
    work: WorkView = WorkView()
    jobs: tuple[JobView, ...] = Field(default=(), max_length=100)
    """Those that run, wait or are due, then the last that are done."""
    credit: CreditView = CreditView()
    ledger: IntegrityView | None = None
    reputation: ReputationView | None = None
    peers: PeersSummary = PeersSummary()
    fleets: tuple[FleetView, ...] = ()
    certificates: tuple[CertificateView, ...] = ()
    attention: tuple[AttentionView, ...] = Field(default=(), max_length=100)
    endpoints: tuple[EndpointView, ...] = ()


class Jobs(View):
    """All jobs that are kept, newest first."""

    jobs: tuple[JobView, ...] = ()


class Peers(View):
    """All peers."""

    peers: tuple[PeerView, ...] = ()


class Proofs(View):
    """All proofs that are kept, newest first."""

    proofs: tuple[ProofView, ...] = ()


INPUT_BYTES: Final = 16 << 20
"""The mesh protocol's limit of one input."""
HEADERS: Final = 1 << 20
"""For the headers of its file."""


class RunRequest(Request):
    """Run a model on an input somewhere in the mesh, and prove it."""

    model: str = Field(pattern="^[0-9a-f]{64}$")
    """The digest of a model that is here: `POST /v1/models` brings one."""
    input: bytes = Field(max_length=INPUT_BYTES + HEADERS, repr=False)
    """A `.npy` file, or a `.npz` by tensor name."""
    max_price_ucr: Amount | None = Field(default=None, ge=1, le=1 << 40)
    deadline_ms: int | None = Field(default=None, ge=1, le=365 * 86_400_000)
    worker: str | None = Field(default=None, max_length=128)
    """The only peer that may have it: its id, short id or name."""


class GrantRequest(Request):
    """Lend a peer more, or with 0 nothing any longer."""

    peer: str = Field(min_length=1, max_length=128)
    amount_ucr: Amount = Field(ge=0, le=1 << 40)


class DeedRequest(Request):
    """What owners settled between themselves, and their nodes are to write down."""

    what: DeedKind
    peer: str = Field(min_length=1, max_length=128)
    amount_ucr: Amount | None = Field(default=None, ge=1, le=1 << 40)
    """Null: all there is to refund or to write off."""
    about: str = Field(default="", max_length=256)
    """The invoice, in words that both owners use; of a refund the job, by its id or the beginning of it."""


class DrainRequest(Request):
    """Take no new work, finish what is there; or take work again."""

    on: bool = True
    stop: bool = False
    """Stop the agent when it is drained."""


class Audit(View):
    """Who asked for a change, when, and what: written before it is made."""

    id: str
    """16 hexadecimal digits."""
    at: Moment
    uid: int
    gid: int
    pid: int
    action: str
    subject: str
    """What it was about, in a line."""


class DeedView(View):
    """A deed that is written down."""

    what: DeedKind
    peer: PeerRef
    amount_ucr: Amount
    entry: str | None = None
    """What was signed; null where nothing had to be."""
    again: bool = False
    """Whether it was signed before: nothing has changed."""


class Done(View):
    """What became of a change that has no other answer."""

    audit: str
    text: str = ""


class Problem(View):
    """Why a request was refused or failed."""

    kind: str
    what: str
    why: str = ""
    hint: str = ""
    reason: str = ""
    """Of a rejected proof."""
