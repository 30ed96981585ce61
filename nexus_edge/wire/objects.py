"""The objects that outlive a connection: what they say, and how large they may be. `nexus_edge.wire.signing` signs them."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, ClassVar

from nexus_edge.wire.fields import U8, Amt, At, Fee, H, Id, Job, Key, Many, Ms, Octets, Ppm, Record, Text, Total, U
from nexus_edge.wire.limits import KIB

VERSION = 1


class Mode(IntEnum):
    """When a worker proves."""

    PROVED = 1
    """With the answer."""
    DEFERRED = 2
    """By a deadline; the answer comes first."""
    SAMPLED = 3
    """When the draw says so."""


class OutputMode(IntEnum):
    """How a statement holds the output."""

    CLEAR = 1
    COMMITTED = 2


@dataclass(frozen=True)
class SignedBody:
    """What every object has: who signed it and when, by the signer's clock."""

    kind: ClassVar[str]
    limit: ClassVar[int]
    """Bytes of the signed form at most."""
    signer: ClassVar[str]
    passed_on: ClassVar[bool] = False
    """Whether peers other than the signer may submit it."""

    iss: Id
    at: At


@dataclass(frozen=True)
class NodeRecord(SignedBody):
    """Where a node is and what software it runs."""

    kind = "node"
    limit = 1000
    signer = "self"
    passed_on = True

    seq: U
    exp: At
    mesh: Annotated[str, Text(32)]
    proto: Annotated[tuple[int, ...], Many(U8.__metadata__[0], 8)]
    addrs: Annotated[tuple[str, ...], Many(Text(64), 8)]
    udp: U
    name: Annotated[str, Text(32)]
    sw: Annotated[str, Text(32)]
    caps: H


@dataclass(frozen=True)
class DeviceClaim:
    """A device a node says it has."""

    kind: Annotated[str, Text(16)]
    name: Annotated[str, Text(64)]
    mem: U
    n: U


@dataclass(frozen=True)
class ExecutorClaim:
    """An executor, and whose arithmetic it reproduces."""

    name: Annotated[str, Text(16)]
    sem: Annotated[tuple[str, ...], Many(Text(24), 8)]


@dataclass(frozen=True)
class ModelClaim:
    """A model a node offers: `modes` is a set of bits `1 << mode`; times and sizes as its self-test or last jobs found."""

    m: H
    modes: U
    run_ms: Ms
    prove_ms: Ms
    mem: U
    proof: U


@dataclass(frozen=True)
class Caps(SignedBody):
    """What a node says it can do. Claims rank nobody."""

    kind = "caps"
    limit = 64 * KIB
    signer = "self"

    seq: U
    exp: At
    dev: Annotated[tuple[DeviceClaim, ...], Many(Record(DeviceClaim), 16)]
    exec: Annotated[tuple[ExecutorClaim, ...], Many(Record(ExecutorClaim), 8)]
    models: Annotated[tuple[ModelClaim, ...], Many(Record(ModelClaim), 256)]
    rate: U
    slots: U


@dataclass(frozen=True)
class Quote(SignedBody):
    """A worker's offer. It stores nothing: it recognises its own signature in the lease."""

    kind = "quote"
    limit = 2 * KIB
    signer = "worker"

    to: Id
    rid: Annotated[bytes, Octets(16)]
    model: H
    sem: Annotated[str, Text(24)]
    params: Annotated[str, Text(16)]
    mode: U
    in_max: U
    price: Amt
    start_fee: Fee
    queue_ms: Ms
    run_ms: Ms
    prove_ms: Ms
    deadline_ms: Ms
    p_ppm: Ppm
    stake: Fee
    audit_ms: Ms
    ttl_ms: Ms
    room: Total
    """What the asker may still draw of the worker's credit."""
    missing: Annotated[tuple[bytes, ...], Many(Octets(32, "h"), 8)]
    """What the worker lacks, by digest: to be put before the lease."""


@dataclass(frozen=True)
class Lease(SignedBody):
    """The requester's order: the quote's terms repeated, the input committed to."""

    kind = "lease"
    limit = 2 * KIB
    signer = "requester"

    to: Id
    job: Job
    att: U8
    quote: H
    inc: H
    outm: U
    commit: H
    model: H
    sem: Annotated[str, Text(24)]
    params: Annotated[str, Text(16)]
    mode: U
    price: Amt
    start_fee: Fee
    deadline_ms: Ms
    p_ppm: Ppm
    stake: Fee
    audit_ms: Ms


@dataclass(frozen=True)
class Accept(SignedBody):
    """The worker's yes: from here the requester's money is reserved on both sides."""

    kind = "accept"
    limit = 512
    signer = "worker"

    to: Id
    lease: H
    commit: H


@dataclass(frozen=True)
class Result(SignedBody):
    """The worker's answer. `out` is bound to the lease; `outc` is the output's commitment, zeros where the output is clear."""

    kind = "result"
    limit = KIB
    signer = "worker"

    to: Id
    lease: H
    out: H
    outc: H
    rand: Annotated[bytes, Octets(32, "h")]
    run_ms: Ms
    peak: U


@dataclass(frozen=True)
class ProofNotice(SignedBody):
    """The worker's word for a proof: which bytes prove which statement."""

    kind = "proof"
    limit = KIB
    signer = "worker"

    to: Id
    lease: H
    result: H
    stmt: H
    proof: H
    len: U
    prove_ms: Ms


@dataclass(frozen=True)
class Entry(SignedBody):
    """One line of a debtor's book for one creditor: `what` it is for, and the total of this chain and all before it."""

    kind = "entry"
    limit = 512
    signer = "debtor"

    to: Id
    chain: Annotated[bytes, Octets(8)]
    seq: U
    prev: H
    what: Annotated[str, Text(12), Key("kind")]
    amt: Fee
    total: Total
    ref: H


@dataclass(frozen=True)
class Ack(SignedBody):
    """The creditor has taken an entry."""

    kind = "ack"
    limit = 300
    signer = "creditor"

    to: Id
    entry: H


@dataclass(frozen=True)
class Evidence(SignedBody):
    """What anyone can check alone, from bytes: that a node broke a rule which honest nodes cannot break."""

    kind = "evidence"
    limit = 32 * KIB
    signer = "reporter"
    passed_on = True

    about: Id
    cls: U8
    parts: Annotated[tuple[bytes, ...], Many(Octets(32 * KIB, exact=False), 8)]
    blobs: Annotated[tuple[bytes, ...], Many(Octets(32, "h"), 4)]


@dataclass(frozen=True)
class Vouched:
    """A peer that served the signer, in a coarse measure."""

    id: Id
    w: U8


@dataclass(frozen=True)
class Vouch(SignedBody):
    """Who served the signer."""

    kind = "vouch"
    limit = 4 * KIB
    signer = "requester"
    passed_on = True

    exp: At
    to: Annotated[tuple[Vouched, ...], Many(Record(Vouched), 64)]


@dataclass(frozen=True)
class GroupCertificate(SignedBody):
    """A node belongs to the fleet of the signing key."""

    kind = "group"
    limit = 300
    signer = "group key"
    passed_on = True

    node: Id
    exp: At
    seq: U


OBJECTS: tuple[type[SignedBody], ...] = (
    NodeRecord, Caps, Quote, Lease, Accept, Result, ProofNotice, Entry, Ack, Evidence, Vouch, GroupCertificate,
)  # fmt: skip
