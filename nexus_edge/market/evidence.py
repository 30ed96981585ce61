"""Evidence against a worker that signed a proof which does not show what it signed: anyone can check it alone, from bytes.

No honest node makes such a proof: its child verifies each by the same verifier before anything is signed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nexus_edge.clock import now_ms
from nexus_edge.errors import BadInput, ProofRejected, RejectReason
from nexus_edge.identity import NodeKey
from nexus_edge.proofs.answers import shown_proof
from nexus_edge.proofs.key import VerifyingKey
from nexus_edge.proofs.parameters import ParameterSet
from nexus_edge.proofs.verification import verify
from nexus_edge.proofs.wired import output_commitment, without_float_edges
from nexus_edge.types import Context, Digest, ModelDigest, NodeId
from nexus_edge.wire.digests import blob_digest, output_digest
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.objects import Evidence, Lease, OutputMode, ProofNotice, Result
from nexus_edge.wire.signing import Signed, read_signed, sign

INVALID_PROOF: Final = 1
"""Class of evidence. Parts: the signed lease, result and proof notice. Blobs: the proof and the verifying key."""


class Verdict(StrEnum):
    """What becomes of evidence."""

    PROVEN = "proven"
    UNFOUNDED = "unfounded"
    """It shows nothing against the node that it is about: whoever made it is at fault."""
    UNDECIDED = "undecided"
    """This node cannot tell: something is missing, or of another version. It has no effect."""


@dataclass(frozen=True)
class Finding:
    """A verdict, and why."""

    verdict: Verdict
    why: str


def invalid_proof(
    key: NodeKey, worker: NodeId, parts: tuple[Signed[Lease], Signed[Result], Signed[ProofNotice]], verifying_key: Digest
) -> Signed[Evidence]:
    """What a requester signs; `verifying_key` names the key's bytes."""
    blobs = bytes(parts[2].object.proof), bytes(verifying_key)
    signed = tuple(part.to_bytes() for part in parts)
    return sign(key, Evidence(iss=key.id, at=now_ms(), about=worker, cls=INVALID_PROOF, parts=signed, blobs=blobs))


def check_invalid_proof(evidence: Evidence, contents: Mapping[bytes, bytes]) -> Finding:
    """Whether the worker signed a proof that does not hold. `contents` are blobs by their digest, as far as they are at hand.

    Takes as long as verifying the proof and loading the key: for a thread.
    """
    if evidence.cls != INVALID_PROOF or (len(evidence.parts), len(evidence.blobs)) != (3, 2):
        return Finding(Verdict.UNFOUNDED, "its parts are not those of an invalid proof")
    try:
        lease, result = read_signed(evidence.parts[0], Lease), read_signed(evidence.parts[1], Result)
        notice = read_signed(evidence.parts[2], ProofNotice)
    except BadObject as bad:
        return Finding(Verdict.UNFOUNDED, bad.why)
    if {lease.object.to, result.issuer, notice.issuer} != {evidence.about}:
        return Finding(Verdict.UNFOUNDED, "another node signed the result")
    if {result.object.lease, notice.object.lease} != {lease.id} or notice.object.result != result.id:
        return Finding(Verdict.UNFOUNDED, "lease, result and proof do not belong together")
    proof, key_bytes = (contents.get(bytes(blob)) for blob in evidence.blobs)
    if proof is None or key_bytes is None:
        return Finding(Verdict.UNDECIDED, f"the {'proof' if proof is None else 'verifying key'} is not at hand")
    if blob_digest(proof) != notice.object.proof:
        return Finding(Verdict.UNFOUNDED, "the proof's bytes are not those that the worker signed")
    if blob_digest(key_bytes) != evidence.blobs[1]:
        return Finding(Verdict.UNDECIDED, "the verifying key is not the one that is named")
    return _check(lease, result, notice, proof, key_bytes)


def _check(lease: Signed[Lease], result: Signed[Result], notice: Signed[ProofNotice], proof: bytes, key_bytes: bytes) -> Finding:
    order = lease.object
    try:
        key = VerifyingKey.from_bytes(key_bytes)
    except ProofRejected as unread:
        return Finding(Verdict.UNDECIDED, unread.why)
    # Else whoever wants to frame a worker brings a key of another model.
    try:
        chosen = ParameterSet.parse(order.params)
    except BadInput as unknown:
        return Finding(Verdict.UNDECIDED, unknown.why)
    if key.digest != ModelDigest(order.model) or (key.mode, key.security) != (chosen.mode, chosen.security):
        return Finding(Verdict.UNFOUNDED, "the key is not of the model that the lease is about")
    try:
        shown = shown_proof(key, ModelDigest(order.model), order.params, order.inc, proof, notice.object.stmt)
        verify(without_float_edges(key), shown, context=Context(lease.id))
    except ProofRejected as refused:
        if refused.reason in (RejectReason.UNREGISTERED, RejectReason.UNLINKED):
            return Finding(Verdict.UNDECIDED, refused.why)
        return Finding(Verdict.PROVEN, refused.why)
    hidden = [one for one in shown.statement.outputs if isinstance(one, bytes)]
    clear = [one for one in shown.statement.outputs if not isinstance(one, bytes)]
    if order.outm == OutputMode.COMMITTED:
        is_signed = not clear and output_commitment(hidden) == result.object.outc
    else:
        is_signed = not hidden and output_digest(lease.id, b"".join(one.tobytes() for one in clear)) == result.object.out
    if not is_signed:
        return Finding(Verdict.PROVEN, "the proof shows another output than the one that was signed")
    return Finding(Verdict.UNFOUNDED, "the proof holds")
