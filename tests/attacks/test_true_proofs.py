"""Workers that send a true proof of something else, between whole agents: one check alone stands between each and the payment."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nexus_edge.agent import Agent
from nexus_edge.data import demo_model
from nexus_edge.errors import ProofRejected
from nexus_edge.market.jobs import Job, Outcome, Phase
from nexus_edge.market.running import Answer, Order
from nexus_edge.proofs import Model, commit_model
from nexus_edge.proofs.answers import verify_answer
from nexus_edge.proofs.key import VerifyingKey
from nexus_edge.types import Context, Digest, ModelDigest
from nexus_edge.wire.digests import statement_digest
from tests.support.couples import BIRCH, couple, done, submitted

pytestmark = pytest.mark.asyncio

Prove = Callable[[Order, Any], Awaitable[Answer]]


async def refusal(
    alder: Agent, birch: Agent, monkeypatch: pytest.MonkeyPatch, lie: Callable[[Prove, Order, Any], Awaitable[Answer]]
) -> Job:
    """A job that a worker answers so: refused, unpaid, and the worker is excluded."""
    honest = birch.workshop.prove

    async def prove(order: Order, progress: Any) -> Answer:
        return await lie(honest, order, progress)

    monkeypatch.setattr(birch.workshop, "prove", prove)
    job = await done(alder, await submitted(alder, 5000))
    assert (job.phase, [one.outcome for one in job.attempts]) == (Phase.FAILED, [Outcome.INVALID]), job
    assert alder.requester.workers.excludes(BIRCH.id)
    for agent, other in ((alder, birch), (birch, alder)):
        book = await agent.ledger.read(lambda reader, peer=other.key.id: reader.book(peer))  # type: ignore[misc]
        assert (book.out, book.inn) == (0, 0)
    return job


def verified(key: VerifyingKey, model: ModelDigest, context: Digest, job: Job, answer: Answer) -> None:
    """As a requester does it, of another model or job. Raises `ProofRejected`."""
    said = statement_digest(answer.statement)
    verify_answer(key, model, job.params, Context(context), job.inc, answer.output, answer.proof, statement=said)


async def test_a_proof_of_the_same_input_for_another_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same model, same input, same commitment to it, same output: only the lease's id in the statement is another."""
    other, made = Digest(os.urandom(32)), []

    async def for_another_job(honest: Prove, order: Order, progress: Any) -> Answer:
        made.append(await honest(replace(order, context=other), progress))
        return made[0]

    async with couple(tmp_path) as (alder, birch):
        job = await refusal(alder, birch, monkeypatch, for_another_job)
        assert f"it is bound to context {other.hex()}" in job.attempts[0].reason
        key = await alder.workshop.key(job.model)
        verified(key, job.model, other, job, made[0])
        with pytest.raises(ProofRejected, match="context"):
            verified(key, job.model, job.attempts[0].lease, job, made[0])


def another_network() -> bytes:
    """The digits' network with one weight changed: the same tensors, another function."""
    plain = bytearray(demo_model())
    digest = commit_model(Model.from_tflite(bytes(plain))).verifying_key.digest
    for at in range(len(plain) // 2, len(plain)):
        changed = plain[:at] + bytes([plain[at] ^ 1]) + plain[at + 1 :]
        try:
            key = commit_model(Model.from_tflite(bytes(changed))).verifying_key
        except Exception:  # noqa: BLE001 - not every byte is a weight
            continue
        if key.digest != digest:
            return bytes(changed)
    raise AssertionError("no byte is a weight")


async def test_a_proof_of_another_model_on_the_same_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same input, same commitment to it, same lease: only the model's digest in the statement is another."""
    file, made = tmp_path / "other.tflite", []
    file.write_bytes(another_network())
    async with couple(tmp_path) as (alder, birch):
        other = await birch.library.import_file(file, "zk-100", "other")

        async def of_another_model(honest: Prove, order: Order, progress: Any) -> Answer:
            made.append(await honest(replace(order, model=other.model), progress))
            return made[0]

        job = await refusal(alder, birch, monkeypatch, of_another_model)
        assert f"it is about model {other.model.hex()}" in job.attempts[0].reason
        lease = job.attempts[0].lease
        verified(await birch.workshop.key(other.model), other.model, lease, job, made[0])
        with pytest.raises(ProofRejected, match="about model"):
            verified(await alder.workshop.key(job.model), job.model, lease, job, made[0])
