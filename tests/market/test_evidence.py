"""Evidence of an invalid proof: what convinces, what frames nobody, and what is left open."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from nexus_edge.data import demo_digits, demo_model
from nexus_edge.identity import NodeKey
from nexus_edge.market.evidence import Verdict, check_invalid_proof, invalid_proof
from nexus_edge.market.running import Answer, Order
from nexus_edge.proofs import Model, commit_model
from nexus_edge.proofs.wired import commit_inputs
from nexus_edge.types import Digest, JobId, MicroCredits, ModelDigest, UnixMs
from nexus_edge.wire.digests import audit_commitment, blob_digest, output_digest, statement_digest
from nexus_edge.wire.messages import InputUpload
from nexus_edge.wire.objects import Evidence, Lease, ProofNotice, Result
from nexus_edge.wire.signing import Signed, sign
from tests.support.trade import DATA, DIGEST, KEY, Local

REQUESTER, WORKER, OTHER = (NodeKey.from_seed(name.ljust(32, b".")) for name in (b"requester", b"worker", b"other"))
ZEROS = Digest(bytes(32))


def lease_of(inc: Digest, **changes: Any) -> Signed[Lease]:
    plain = Lease(
        iss=REQUESTER.id, at=UnixMs(1), to=WORKER.id, job=JobId(bytes(16)), att=0, quote=ZEROS, inc=inc, outm=1,
        commit=audit_commitment(bytes(16), 0, REQUESTER.id, bytes(32)), model=Digest(DIGEST), sem="tflm", params="zk-100", mode=1,
        price=MicroCredits(7), start_fee=MicroCredits(1), deadline_ms=1000, p_ppm=0, stake=MicroCredits(0), audit_ms=0,
    )  # fmt: skip
    return sign(REQUESTER, replace(plain, **changes))


@cache
def proved(**changes: Any) -> tuple[Signed[Lease], Answer]:
    """A lease, and what an honest worker makes of it."""
    held = commit_inputs(KEY.verifying_key, [demo_digits()[0][0]])
    lease = lease_of(held.inc, **changes)
    upload = InputUpload(DATA, held.seed, 1)
    order = Order(ModelDigest(Digest(DIGEST)), "zk-100", lease.id, upload, held.inc, commit_output=False, output_seed=b"")
    return lease, Local()._prove(order)


def result_of(lease: Signed[Lease], output: bytes, by: NodeKey = WORKER, **changes: Any) -> Signed[Result]:
    plain = Result(
        iss=by.id, at=UnixMs(2), to=REQUESTER.id, lease=lease.id, out=output_digest(lease.id, output), outc=ZEROS, rand=bytes(32), run_ms=1, peak=1
    )  # fmt: skip
    return sign(by, replace(plain, **changes))


def notice_of(of_result: Signed[Result], answer: Answer, by: NodeKey = WORKER, **changes: Any) -> Signed[ProofNotice]:
    plain = ProofNotice(
        iss=by.id, at=UnixMs(2), to=REQUESTER.id, lease=of_result.object.lease, result=of_result.id, stmt=statement_digest(answer.statement),
        proof=blob_digest(answer.proof), len=len(answer.proof), prove_ms=1,
    )  # fmt: skip
    return sign(by, replace(plain, **changes))


def flipped(data: bytes, at: int = -1) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def of(lease: Signed[Lease], result: Signed[Result], notice: Signed[ProofNotice], key: bytes | None = None) -> Evidence:
    key_bytes = KEY.verifying_key.to_bytes() if key is None else key
    return invalid_proof(REQUESTER, WORKER.id, (lease, result, notice), blob_digest(key_bytes)).object


def verdict(evidence: Evidence, *blobs: bytes) -> Verdict:
    return check_invalid_proof(evidence, {bytes(blob_digest(blob)): blob for blob in blobs}).verdict


VK = KEY.verifying_key.to_bytes()


def test_an_honest_answer_convicts_nobody() -> None:
    lease, answer = proved()
    result = result_of(lease, answer.output)
    found = check_invalid_proof(
        of(lease, result, notice_of(result, answer)), {bytes(blob_digest(blob)): blob for blob in (answer.proof, VK)}
    )
    assert (found.verdict, found.why) == (Verdict.UNFOUNDED, "the proof holds")


@pytest.mark.parametrize("place", [-1, 40, 200, 5000, 60_000])
def test_a_changed_proof_that_was_signed_convicts(place: int) -> None:
    lease, answer = proved()
    false = replace(answer, proof=flipped(answer.proof, place))
    result = result_of(lease, answer.output)
    assert verdict(of(lease, result, notice_of(result, false)), false.proof, VK) is Verdict.PROVEN


def test_what_is_signed_beside_a_true_proof_convicts_if_it_is_something_else() -> None:
    lease, answer = proved()
    other_output = result_of(lease, flipped(answer.output))
    assert verdict(of(lease, other_output, notice_of(other_output, answer)), answer.proof, VK) is Verdict.PROVEN
    result = result_of(lease, answer.output)
    other_statement = notice_of(result, answer, stmt=ZEROS)
    assert verdict(of(lease, result, other_statement), answer.proof, VK) is Verdict.PROVEN
    other_lease, other_answer = proved(deadline_ms=2000)
    for_another_job = notice_of(result, other_answer)
    assert verdict(of(lease, result, for_another_job), other_answer.proof, VK) is Verdict.PROVEN
    assert other_lease.id != lease.id


def test_a_proof_of_another_lease_of_the_same_commitment_convicts() -> None:
    """Only the context tells the two apart."""
    first, answer = proved()
    second = lease_of(first.object.inc, att=1)
    result = result_of(second, answer.output)
    found = check_invalid_proof(
        of(second, result, notice_of(result, answer)), {bytes(blob_digest(blob)): blob for blob in (answer.proof, VK)}
    )
    assert found.verdict is Verdict.PROVEN
    assert "context" in found.why


def test_nobody_is_framed_with_another_models_key() -> None:
    lease, answer = proved()
    result = result_of(lease, answer.output)
    plain = commit_model(Model.from_tflite(demo_model()), mode="plain").verifying_key.to_bytes()
    evidence = of(lease, result, notice_of(result, answer), plain)
    assert verdict(evidence, answer.proof, plain) is Verdict.UNFOUNDED


def test_nobody_is_framed_with_what_another_signed() -> None:
    lease, answer = proved()
    false = replace(answer, proof=flipped(answer.proof))
    result = result_of(lease, answer.output)
    good = of(lease, result, notice_of(result, false))
    assert verdict(good, false.proof, VK) is Verdict.PROVEN
    by_other = result_of(lease, answer.output, OTHER)
    framed = {
        "the result": of(lease, by_other, notice_of(by_other, false)),
        "the notice": of(lease, result, notice_of(result, false, OTHER)),
        "another worker's lease": of(lease_of(lease.object.inc, to=OTHER.id), result, notice_of(result, false)),
        "a result of another lease": of(lease_of(lease.object.inc, att=2), result, notice_of(result, false)),
        "a notice of another result": of(lease, result, notice_of(result, false, result=ZEROS)),
        "a forged signature": replace(good, parts=(*good.parts[:2], flipped(good.parts[2]))),
        "nonsense": replace(good, parts=(good.parts[0], b"\xff", good.parts[2])),
        "a part too few": replace(good, parts=good.parts[:2]),
        "another class": replace(good, cls=2),
        "somebody else": replace(good, about=OTHER.id),
    }
    assert {name: verdict(one, false.proof, VK) for name, one in framed.items()} == dict.fromkeys(framed, Verdict.UNFOUNDED)


def test_bytes_that_were_never_signed_convict_nobody() -> None:
    lease, answer = proved()
    result = result_of(lease, answer.output)
    evidence = of(lease, result, notice_of(result, answer))
    false = flipped(answer.proof)
    brought = replace(evidence, blobs=(bytes(blob_digest(false)), evidence.blobs[1]))
    assert verdict(brought, false, VK) is Verdict.UNFOUNDED


def test_what_cannot_be_told_is_left_open() -> None:
    lease, answer = proved()
    false = replace(answer, proof=flipped(answer.proof))
    result = result_of(lease, answer.output)
    evidence = of(lease, result, notice_of(result, false))
    assert verdict(evidence, VK) is Verdict.UNDECIDED
    assert verdict(evidence, false.proof) is Verdict.UNDECIDED
    other_version = b"NXEvkey9" + VK[8:]
    assert verdict(of(lease, result, notice_of(result, false), other_version), false.proof, other_version) is Verdict.UNDECIDED
    strange = lease_of(lease.object.inc, params="zk-7")
    strange_result = result_of(strange, answer.output)
    assert verdict(of(strange, strange_result, notice_of(strange_result, false)), false.proof, VK) is Verdict.UNDECIDED
    swapped = {evidence.blobs[0]: false.proof, evidence.blobs[1]: flipped(VK)}
    assert check_invalid_proof(evidence, swapped).verdict is Verdict.UNDECIDED


def test_the_output_is_compared_as_the_programs_integers() -> None:
    lease, answer = proved()
    assert np.frombuffer(answer.output, np.int8).size == len(answer.output)
    wide = result_of(lease, np.frombuffer(answer.output, np.int8).astype("<i2").tobytes())
    assert verdict(of(lease, wide, notice_of(wide, answer)), answer.proof, VK) is Verdict.PROVEN
