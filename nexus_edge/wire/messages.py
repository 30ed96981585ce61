"""The unsigned bodies of requests and answers: what is only true now, and proves nothing later."""

from dataclasses import dataclass
from typing import Annotated, TypeVar

from nexus_edge.types import Digest
from nexus_edge.wire.cbor import decode, encode
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.fields import (
    Amt,
    At,
    H,
    Integer,
    Key,
    Many,
    Maybe,
    Ms,
    Octets,
    Record,
    Text,
    Total,
    U,
    Yes,
    most_values,
    read_fields,
    write_fields,
)
from nexus_edge.wire.limits import (
    CERTIFICATES,
    CHUNK,
    CHUNKS,
    ENTRIES_PER_POST,
    EVENTS_PER_POLL,
    INPUT,
    LONG_POLL_MS,
    MODEL,
    OUTPUT,
    SMALL_ANSWER,
    TENSORS,
    TEXT,
)
from nexus_edge.wire.objects import Ack, Entry, GroupCertificate, Lease, NodeRecord, Quote, Result

Message = TypeVar("Message")


@dataclass(frozen=True)
class Empty:
    """Nothing to say."""


@dataclass(frozen=True)
class PeersRequest:
    """Whom the asker knows already."""

    have: Annotated[tuple[bytes, ...], Many(Octets(32, "id"), 64)]


@dataclass(frozen=True)
class PeersAnswer:
    """Signed node records of a random sample of reachable peers."""

    nodes: Annotated[tuple[bytes, ...], Many(Octets(NodeRecord.limit, "signed node", exact=False), 32)]


@dataclass(frozen=True)
class PingRequest:
    """The asker's clock."""

    at: At


@dataclass(frozen=True)
class PingAnswer:
    """The answerer's clock, the address it sees, and whether it reaches the asker: one who was known and is no more asks to be dialled back."""

    at: At
    addr: Annotated[str, Text(64)]
    known: Yes


@dataclass(frozen=True)
class DialbackRequest:
    """The port to dial at the connection's source address."""

    port: Annotated[int, Integer(1, 65535, "u16")]


@dataclass(frozen=True)
class DialbackAnswer:
    """Whether the asker was reached, and its key was right."""

    ok: Yes
    error: Annotated[str, Text(200)]


@dataclass(frozen=True)
class GroupPost:
    """A certificate that names the asker. To be remembered: the asker need not show it again before it is renewed."""

    certificate: Annotated[bytes, Octets(GroupCertificate.limit, "signed group", exact=False)]


@dataclass(frozen=True)
class GroupsAnswer:
    """The certificates that name the answerer."""

    certificates: Annotated[tuple[bytes, ...], Many(Octets(GroupCertificate.limit, "signed group", exact=False), CERTIFICATES)]


@dataclass(frozen=True)
class QuoteRequest:
    """What a requester wants to know the price of. `size` is the input's, in bytes."""

    rid: Annotated[bytes, Octets(16)]
    model: H
    sem: Annotated[str, Text(24)]
    params: Annotated[str, Text(16)]
    mode: U
    size: Annotated[int, Integer(0, INPUT, "u"), Key("in")]
    max_price: Amt
    deadline_ms: Ms


@dataclass(frozen=True)
class InputUpload:
    """The input as little-endian integers in the model's order, with the seeds of its commitments (none of plain ones)."""

    data: Annotated[bytes, Octets(INPUT, exact=False)]
    seed: Annotated[bytes, Octets(32 * TENSORS, exact=False)]
    openings: U
    """How many proofs the worker may make of these commitments."""


@dataclass(frozen=True)
class LeaseOffer:
    """A signed lease with the signed quote that it takes: the worker stored nothing, and recognises its own signature. A small input comes along."""

    lease: Annotated[bytes, Octets(Lease.limit, "signed lease", exact=False)]
    quote: Annotated[bytes, Octets(Quote.limit, "signed quote", exact=False)]
    input: Annotated[InputUpload | None, Maybe(Record(InputUpload))]


@dataclass(frozen=True)
class LeaseEvent:
    """One step of a lease, `ms` after its accept. Numbered from 1."""

    n: U
    ms: Ms
    kind: Annotated[str, Text(24)]
    detail: Annotated[str, Text(200)]


@dataclass(frozen=True)
class ResultAnswer:
    """Signed result, output bytes, the signed proof notice once there is a proof, and the seed of the output's commitment if it is committed.

    `content` has the proof's bytes if output and proof together are small; else they are fetched in parts.
    """

    result: Annotated[bytes, Octets(Result.limit, "signed result", exact=False)]
    output: Annotated[bytes, Octets(OUTPUT, exact=False)]
    proof: Annotated[bytes | None, Maybe(Octets(1024, "signed proof", exact=False))]
    seed: Annotated[bytes | None, Maybe(Octets(32))]
    content: Annotated[bytes | None, Maybe(Octets(SMALL_ANSWER, exact=False))]


@dataclass(frozen=True)
class LeaseStatus:
    """How a lease stands. `beat` rises while work really progresses; `events` are those after the asked one; `owed` what is to be paid now.

    `eta_ms` is a forecast of the time until it is done, null where the worker has nothing to base it on. `answer` is what `result` would answer, once there is something small to fetch.
    """

    state: Annotated[str, Text(12)]
    phase: Annotated[str, Text(24)]
    done_ppm: U
    eta_ms: Annotated[int | None, Maybe(Ms.__metadata__[0])]
    beat: U
    reason: Annotated[str, Text(200)]
    owed: Total
    events: Annotated[tuple[LeaseEvent, ...], Many(Record(LeaseEvent), EVENTS_PER_POLL)]
    answer: Annotated[ResultAnswer | None, Maybe(Record(ResultAnswer))]


@dataclass(frozen=True)
class PollQuery:
    """The query of a poll: events after this number, and how long to wait for one."""

    after: U
    wait: Annotated[int, Integer(0, LONG_POLL_MS, "ms")]


@dataclass(frozen=True)
class RevealRequest:
    """The requester's half of the draw."""

    r: Annotated[bytes, Octets(32)]


@dataclass(frozen=True)
class RevealAnswer:
    """What the draw said."""

    audit: Yes


@dataclass(frozen=True)
class EntriesPost:
    """Signed entries of the asker, in their order."""

    entries: Annotated[tuple[bytes, ...], Many(Octets(Entry.limit, "signed entry", exact=False), ENTRIES_PER_POST)]


@dataclass(frozen=True)
class EntriesAnswer:
    """Acknowledgements, and the last entry of the asker that the creditor holds."""

    acks: Annotated[tuple[bytes, ...], Many(Octets(Ack.limit, "signed ack", exact=False), ENTRIES_PER_POST)]
    last: Annotated[bytes | None, Maybe(Octets(Entry.limit, "signed entry", exact=False))]


@dataclass(frozen=True)
class AccountQuery:
    """From where the asker lacks the other's entries: the last it holds."""

    chain: Annotated[bytes, Octets(8)]
    seq: U


@dataclass(frozen=True)
class AccountAnswer:
    """Entries that the answerer issued to the asker since, what it holds of the asker's stake, and what the two do not agree on."""

    entries: Annotated[tuple[bytes, ...], Many(Octets(Entry.limit, "signed entry", exact=False), ENTRIES_PER_POST)]
    locked: Total
    disputed: Total


@dataclass(frozen=True)
class Manifest:
    """What a large object consists of: chunks of 1 MiB, the last one shorter."""

    size: Annotated[int, Integer(1, MODEL, "u")]
    chunks: Annotated[tuple[Digest, ...], Many(Octets(32, "h"), CHUNKS)]

    def __post_init__(self) -> None:
        if len(self.chunks) != -(-self.size // CHUNK):
            raise BadObject(f"a manifest of {self.size} bytes has {-(-self.size // CHUNK)} chunks")


@dataclass(frozen=True)
class Chunk:
    """One chunk of an object whose manifest is known."""

    index: U
    data: Annotated[bytes, Octets(CHUNK, exact=False)]


@dataclass(frozen=True)
class Upload:
    """A manifest, or a chunk: exactly one of the two."""

    manifest: Annotated[Manifest | None, Maybe(Record(Manifest))]
    chunk: Annotated[Chunk | None, Maybe(Record(Chunk))]

    def __post_init__(self) -> None:
        if (self.manifest is None) == (self.chunk is None):
            raise BadObject("an upload is a manifest or a chunk")


@dataclass(frozen=True)
class UploadAnswer:
    """The chunks that are missing still, the first so many of them; complete when there are none and the object was checked."""

    missing: Annotated[tuple[int, ...], Many(Integer(0, CHUNKS - 1, "u"), 256)]
    complete: Yes


@dataclass(frozen=True)
class ObjectPart:
    """A part of an object, and the size of the whole."""

    data: Annotated[bytes, Octets(CHUNK, exact=False)]
    total: U


@dataclass(frozen=True)
class PartQuery:
    """Which part."""

    start: U
    length: Annotated[int, Integer(1, CHUNK, "u")]


@dataclass(frozen=True)
class RefusalBody:
    """Why not. `last` is the asker's last entry that a creditor holds, `room` what the asker may still draw."""

    code: Annotated[str, Text(24)]
    text: Annotated[str, Text(200)]
    retry_ms: Annotated[int | None, Maybe(Ms.__metadata__[0])]
    last: Annotated[bytes | None, Maybe(Octets(Entry.limit, "signed entry", exact=False))]
    room: Annotated[int | None, Maybe(Total.__metadata__[0])]


MESSAGES: tuple[type, ...] = (
    Empty, PeersRequest, PeersAnswer, PingRequest, PingAnswer, DialbackRequest, DialbackAnswer, GroupPost, GroupsAnswer, QuoteRequest, LeaseOffer,
    PollQuery, LeaseStatus, InputUpload, ResultAnswer, RevealRequest, RevealAnswer, EntriesPost, EntriesAnswer, AccountQuery, AccountAnswer, Upload, UploadAnswer,
    PartQuery, ObjectPart, RefusalBody,
)  # fmt: skip


def encode_message(message: object) -> bytes:
    """The canonical bytes. Raises `BadObject` if a field is out of bounds."""
    return encode(write_fields(message))


def decode_message(kind: type[Message], data: bytes, limit: int) -> Message:
    """Check and decode. Raises `BadObject`."""
    return read_fields(kind, decode(data, limit, most_values(kind), TEXT))
