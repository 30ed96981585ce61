"""Whether what a worker sends belongs together, before anything of it is looked at closer."""

from nexus_edge.market.jobs import Attempt
from nexus_edge.transport import PeerConnection
from nexus_edge.wire.digests import blob_digest, output_digest
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import CHUNK, PROOF
from nexus_edge.wire.objects import Lease, ProofNotice, Result
from nexus_edge.wire.signing import Signed


def check_result(order: Lease, attempt: Attempt, result: Signed[Result], notice: Signed[ProofNotice], output: bytes) -> None:
    """Raise `BadObject` unless result and notice are the worker's, of this lease, and about these bytes."""
    if result.issuer != attempt.worker or notice.issuer != attempt.worker:
        raise BadObject("another node signed the result")
    if result.object.lease != attempt.lease or result.object.to != order.iss or notice.object.lease != attempt.lease:
        raise BadObject("the result is of another lease")
    if notice.object.result != result.id or result.object.out != output_digest(attempt.lease, output):
        raise BadObject("result, output and proof do not belong together")


async def download(connection: PeerConnection, notice: ProofNotice, came: bytes | None) -> bytes:
    """The proof that a notice names: what came with it, or fetched in parts. Raises `BadObject` if its bytes are others."""
    if notice.len > PROOF:
        raise BadObject(f"the proof has {notice.len} bytes, at most {PROOF} are taken")
    content = bytearray(came or b"")
    if came is not None and len(came) != notice.len:
        raise BadObject("the proof has another length than the worker signed")
    while len(content) < notice.len:
        part = await connection.get_object(notice.proof, len(content), CHUNK)
        # Whole parts only: one byte at a time would take for ever.
        if len(part.data) != min(CHUNK, notice.len - len(content)) or part.total != notice.len:
            raise BadObject("the proof has another length than the worker signed")
        content += part.data
    if blob_digest(bytes(content)) != notice.proof:
        raise BadObject("the proof's bytes are not those that the worker signed")
    return bytes(content)
