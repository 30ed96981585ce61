"""Workers and requesters that lie about jobs and money, against whole traders: each fails in the stated way, and costs what is stated."""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nexus_edge.agent import Agent
from nexus_edge.data import demo_digits
from nexus_edge.errors import LedgerError
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import CreditPolicy
from nexus_edge.market.jobs import Job, Outcome, Phase
from nexus_edge.market.leases import State
from nexus_edge.market.ordering import Order
from nexus_edge.market.placement import WORDS, Unfit
from nexus_edge.market.requester import Requester
from nexus_edge.market.running import Answer
from nexus_edge.proofs import commit_model, prove
from nexus_edge.transport import PeerConnection
from nexus_edge.types import Context, Digest, JobId, MicroCredits
from nexus_edge.wire.digests import audit_commitment
from nexus_edge.wire.messages import InputUpload, QuoteRequest
from nexus_edge.wire.objects import Entry, Lease, ProofNotice, Quote, Result
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed, sign
from tests.support.trade import DATA, DIGEST, KEY, MODEL, Trader, traders

pytestmark = pytest.mark.asyncio

OTHER_IMAGE = demo_digits()[1][0]


def order(**changes: Any) -> Order:
    plain = {"model": DIGEST, "sem": "tflm", "params": "zk-100", "data": DATA, "max_price": MicroCredits(10_000), "deadline_ms": 20_000}
    return Order(**{**plain, **changes})


async def ended(trader: Trader, job: Job) -> Job:
    found = await trader.requester.wait(job.id, 30)
    assert found.phase.is_final, found
    return found


async def owes_nothing(requester: Trader, worker: Trader) -> bool:
    ours = await requester.ledger.read(lambda reader: reader.book(worker.key.id))
    theirs = await worker.ledger.read(lambda reader: reader.book(requester.key.id))
    return (ours.out, ours.reserved_out, theirs.inn) == (0, 0, 0)


# Workers that lie


def wrong_output(answer: Answer) -> Answer:
    return replace(answer, output=bytes([answer.output[0] ^ 1]) + answer.output[1:])


def another_output_and_its_proof(_: Answer) -> Answer:
    """A true proof, of another input."""
    return _proved(OTHER_IMAGE, secrets.token_bytes(32))


def proof_for_another_job(answer: Answer) -> Answer:
    """A true proof of the same computation, bound to another lease."""
    made = _proved(demo_digits()[0][0], secrets.token_bytes(32))
    assert made.output == answer.output
    return made


def proof_under_another_key(answer: Answer) -> Answer:
    """A true proof by the same model under other parameters: its key has another digest."""
    other = commit_model(MODEL, security=128)
    proved = prove(other, [demo_digits()[0][0]], context=Context(bytes(32)))
    return replace(answer, proof=proved.proof.to_bytes(), statement=proved.proof.statement.to_bytes())


def truncated_proof(answer: Answer) -> Answer:
    return replace(answer, proof=answer.proof[:-1])


def no_proof(answer: Answer) -> Answer:
    return replace(answer, proof=b"")


def another_statement_than_signed(answer: Answer) -> Answer:
    return replace(answer, statement=answer.statement + b"\0")


def _proved(image: Any, context: bytes) -> Answer:
    proved = prove(KEY, [image], context=Context(context))
    return Answer(proved.outputs[0].tobytes(), None, proved.proof.statement.to_bytes(), proved.proof.to_bytes(), 1, 1, 1)  # type: ignore[arg-type]


LIES: list[Callable[[Answer], Answer]] = [
    wrong_output, another_output_and_its_proof, proof_for_another_job, proof_under_another_key, truncated_proof, no_proof,
    another_statement_than_signed,
]  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
async def test_a_false_answer_is_refused_paid_with_nothing_and_remembered(tmp_path: Path, lie: Callable[[Answer], Answer]) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.spoil = lie
        job = await ended(alder, await alder.requester.submit(order(deadline_ms=3000)))
        assert job.phase is Phase.FAILED
        assert [attempt.outcome for attempt in job.attempts] == [Outcome.INVALID], job.attempts
        assert await owes_nothing(alder, birch)
        assert alder.requester.workers.excludes(birch.key.id)
        assert f"1 {WORDS[Unfit.EXCLUDED]}" in job.reason
        birch.local.spoil = lambda answer: answer
        again = await ended(alder, await alder.requester.submit(order(deadline_ms=500)))
        assert again.attempts == ()


async def test_a_job_goes_on_with_an_honest_worker(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        birch.local.spoil = wrong_output
        alder.known = {birch.key.id: alder.known[birch.key.id]}
        job = await alder.requester.submit(order())
        await alder.requester.jobs.changed(lambda: len(alder.requester.jobs[job.id].attempts) > 0, 10)
        alder.meets(cedar)
        done = await ended(alder, job)
        assert done.phase is Phase.SETTLED
        assert [attempt.outcome for attempt in done.attempts] == [Outcome.INVALID, Outcome.VERIFIED]
        assert await owes_nothing(alder, birch)
        assert (await cedar.ledger.read(lambda reader: reader.book(alder.key.id))).owed == done.paid


async def test_results_signed_by_another_key_or_of_another_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for forge in ("signer", "lease"):
        async with traders(tmp_path / forge, "alder", "birch") as (alder, birch):
            serve, thief = birch.worker.result, NodeKey.generate()

            async def result(
                caller: Any, lease: Digest, forge: str = forge, serve: Any = serve, thief: NodeKey = thief, birch: Trader = birch
            ) -> Any:
                answer = await serve(caller, lease)
                key = thief if forge == "signer" else birch.key
                said = await birch.ledger.read(lambda reader: reader.object(birch.worker.leases[lease].result))  # type: ignore[arg-type]
                other = {"iss": key.id} if forge == "signer" else {"lease": Digest(bytes(32))}
                return replace(answer, result=sign(key, replace(said.of(Result).object, **other)).to_bytes())

            monkeypatch.setattr(birch.worker, "result", result)
            job = await ended(alder, await alder.requester.submit(order(deadline_ms=3000)))
            assert job.attempts[0].outcome is Outcome.INVALID
            assert await owes_nothing(alder, birch)


async def test_a_proof_of_a_size_that_nobody_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        serve = birch.worker.result

        async def result(caller: Any, lease: Digest) -> Any:
            answer = await serve(caller, lease)
            notice = await birch.ledger.read(lambda reader: reader.object(birch.worker.leases[lease].notice))  # type: ignore[arg-type]
            return replace(answer, proof=sign(birch.key, replace(notice.of(ProofNotice).object, len=2**40)).to_bytes())

        monkeypatch.setattr(birch.worker, "result", result)
        job = await ended(alder, await alder.requester.submit(order(deadline_ms=3000)))
        assert job.attempts[0].outcome is Outcome.INVALID
        assert "at most" in job.attempts[0].reason


async def test_a_worker_that_never_works_is_given_up_at_its_deadline(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.gate.clear()
        job = await ended(alder, await alder.requester.submit(order(deadline_ms=1500)))
        assert job.phase is Phase.FAILED
        assert job.attempts[0].outcome in (Outcome.LOST, Outcome.FAILED)
        async with asyncio.timeout(5):
            while any(lease.state.is_open for lease in birch.worker.leases):
                await asyncio.sleep(0.05)
        assert await owes_nothing(alder, birch)
        # The late result is not paid: the lease has ended on both sides.
        birch.local.gate.set()
        connection = birch_for(alder, birch)
        with pytest.raises(Refusal) as refused:
            await connection.result(job.attempts[0].lease)
        assert refused.value.code is Code.LEASE_ENDED


# Requesters that lie


def birch_for(asker: Trader, birch: Trader) -> PeerConnection:
    return asker.client.at(birch.key.id, "127.0.0.1", birch.server.port)


async def quoted(asker: Trader, birch: Trader) -> Signed[Quote]:
    request = QuoteRequest(secrets.token_bytes(16), Digest(DIGEST), "tflm", "zk-100", 1, len(DATA), MicroCredits(10_000), 20_000)
    return await birch_for(asker, birch).quote(request)


def lease_of(asker: Trader | Agent, quote: Signed[Quote], inc: Digest, **changes: Any) -> Signed[Lease]:
    terms, job = quote.object, JobId(secrets.token_bytes(16))
    lease = Lease(
        iss=asker.key.id, at=terms.at, to=quote.issuer, job=job, att=0, quote=quote.id, inc=inc, outm=1,
        commit=audit_commitment(job, 0, asker.key.id, bytes(32)), model=terms.model, sem=terms.sem, params=terms.params, mode=terms.mode,
        price=terms.price, start_fee=terms.start_fee, deadline_ms=terms.deadline_ms, p_ppm=terms.p_ppm, stake=terms.stake, audit_ms=terms.audit_ms,
    )  # fmt: skip
    return sign(asker.key, replace(lease, **changes))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"price": MicroCredits(1)}, Code.BAD_OBJECT),
        ({"deadline_ms": 1}, Code.BAD_OBJECT),
        ({"mode": 2}, Code.BAD_OBJECT),
        ({"model": Digest(bytes(32))}, Code.BAD_OBJECT),
        ({"outm": 7}, Code.BAD_OBJECT),
        ({"to": NodeKey.from_seed(bytes(32)).id}, Code.BAD_OBJECT),
    ],
)
async def test_a_lease_that_changes_the_terms(tmp_path: Path, changes: dict[str, Any], code: Code) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        quote = await quoted(alder, birch)
        with pytest.raises(Refusal) as refused:
            await birch_for(alder, birch).lease(lease_of(alder, quote, Digest(bytes(32)), **changes), quote)
        assert refused.value.code is code
        assert list(birch.worker.leases) == []


async def test_who_has_no_credit_is_told_how_to_get_more(tmp_path: Path) -> None:
    nothing = CreditPolicy(private_bucket=MicroCredits(0), public_bucket=MicroCredits(0))
    async with traders(tmp_path, "alder", "birch", policy=nothing) as (alder, birch):
        quote = await quoted(alder, birch)
        inc, _ = await alder.local.commit(DIGEST, DATA)
        with pytest.raises(Refusal, match=f"earned {quote.object.price} from this node by work for it, or by a grant") as refused:
            await birch_for(alder, birch).lease(lease_of(alder, quote, inc), quote)
        assert (refused.value.code, refused.value.room) == (Code.NO_CREDIT, 0)
        # Work that costs as much is enough: the one pays for the other.
        await alder.ledger.transact("grant", lambda tx: tx.grant(birch.key.id, quote.object.price))
        paid = await ended(birch, await birch.requester.submit(order()))
        assert (paid.phase, paid.paid) == (Phase.SETTLED, quote.object.price)
        quote = await quoted(alder, birch)
        accept = await birch_for(alder, birch).lease(lease_of(alder, quote, inc), quote)
        assert accept.object.to == alder.key.id


async def test_a_draining_node_says_when_to_ask_again(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        quote = await quoted(alder, birch)
        birch.worker.letting.draining = True
        for asking in (quoted(alder, birch), birch_for(alder, birch).lease(lease_of(alder, quote, Digest(bytes(32))), quote)):
            with pytest.raises(Refusal) as refused:
                await asking
            assert (refused.value.code, refused.value.retry_ms) == (Code.DRAINING, 60_000)


async def test_a_result_that_comes_after_another_worker_was_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first worker is slow and given up; the second is leased and paid; then the first delivers: nobody pays it."""
    monkeypatch.setattr("nexus_edge.market.watching.LOST_S", 0.3)
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        for one in (birch, cedar):
            one.local.gate.clear()
        job = await alder.requester.submit(order())
        async with asyncio.timeout(20):
            while not alder.requester.jobs[job.id].accepted:
                await asyncio.sleep(0.01)
            first = birch if alder.requester.jobs[job.id].attempt.worker == birch.key.id else cedar
            second = cedar if first is birch else birch
            second.local.gate.set()
        done = await ended(alder, job)
        assert (done.phase, [attempt.worker for attempt in done.attempts]) == (Phase.SETTLED, [first.key.id, second.key.id])
        assert done.attempts[0].outcome is Outcome.LOST
        first.local.gate.set()
        await asyncio.sleep(0.5)
        (late,) = list(first.worker.leases)
        assert late.entry is None
        assert late.state in (State.CANCELLED, State.UNPAID)
        books = {book.peer: book for book in await alder.ledger.read(lambda reader: reader.books())}
        assert [books[one.key.id].out for one in (first, second)] == [0, done.paid]
        assert [books[one.key.id].reserved_out for one in (first, second)] == [0, 0]
        mirror = await first.ledger.read(lambda reader: reader.book(alder.key.id))
        assert mirror.inn == 0


async def test_quotes_and_leases_of_others(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        inc, upload = await alder.local.commit(DIGEST, DATA)
        quote = await quoted(alder, birch)
        with pytest.raises(Refusal, match="did not make to you") as refused:
            await birch_for(cedar, birch).lease(lease_of(cedar, quote, inc), quote)
        assert refused.value.code is Code.BAD_OBJECT
        own = sign(cedar.key, replace(quote.object, iss=cedar.key.id))
        with pytest.raises(Refusal):
            await birch_for(cedar, birch).lease(lease_of(cedar, own, inc, to=birch.key.id), own)
        lease = lease_of(alder, quote, inc)
        accept = await birch_for(alder, birch).lease(lease, quote)
        assert await birch_for(alder, birch).lease(lease, quote) == accept, "the same bytes again get the same answer"
        with pytest.raises(Refusal) as refused:
            await birch_for(alder, birch).lease(lease_of(alder, quote, inc), quote)
        assert refused.value.code is Code.CONFLICT, "a quote is taken once"
        thief = birch_for(cedar, birch)
        for ask in (thief.poll(lease.id, 0, 0), thief.cancel(lease.id), thief.result(lease.id), thief.put_input(lease.id, upload)):
            with pytest.raises(Refusal) as refused:
                await ask
            assert refused.value.code is Code.NOT_FOUND
        await birch_for(alder, birch).cancel(lease.id)
        with pytest.raises(Refusal) as refused:
            await birch_for(alder, birch).lease(lease, quote)
        assert refused.value.code is Code.LEASE_ENDED


@pytest.mark.parametrize("spoil", ["data", "seed", "openings", "size"])
async def test_an_input_that_is_not_the_one_committed_to_ends_the_lease_without_debt(tmp_path: Path, spoil: str) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        inc, upload = await alder.local.commit(DIGEST, DATA)
        others = {
            "data": replace(upload, data=OTHER_IMAGE.astype(np.int8).tobytes()),
            "seed": replace(upload, seed=bytes(32)),
            "openings": replace(upload, openings=0),
            "size": InputUpload(upload.data + b"\0", upload.seed, 1),
        }
        quote = await quoted(alder, birch)
        lease = lease_of(alder, quote, inc)
        await birch_for(alder, birch).lease(lease, quote)
        with pytest.raises(Refusal) as refused:
            await birch_for(alder, birch).put_input(lease.id, others[spoil])
        assert refused.value.code is Code.BAD_INPUT
        assert birch.worker.leases[lease.id].state is State.FAILED
        assert (await birch.ledger.read(lambda reader: reader.book(alder.key.id))).exposure == 0
        assert birch.local.pins == 0


async def test_a_proof_is_for_its_requester(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        job = await ended(alder, await alder.requester.submit(order(worker=birch.key.id)))
        assert job.attempt.proof is not None
        assert (await birch_for(alder, birch).get_object(job.attempt.proof, 0, 10)).data
        with pytest.raises(Refusal) as refused:
            await birch_for(cedar, birch).get_object(job.attempt.proof, 0, 10)
        assert refused.value.code is Code.NOT_FOUND


def _promised(requester: Requester, job: Job) -> bool:
    phase = requester.jobs[job.id].phase
    return phase is Phase.PAYING or phase.is_final


async def test_who_never_pays_costs_no_more_than_the_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names it has: they are all at one address, and one address has half of the bucket."""
    policy = CreditPolicy(private_bucket=MicroCredits(400))
    async with traders(tmp_path, "birch", policy=policy) as (birch,):
        for number in range(4):
            sybil = Trader(tmp_path / f"sybil-{number}", NodeKey.generate(), None)
            await sybil.start()
            monkeypatch.setattr(sybil.requester.payer, "wake", lambda _: None)
            sybil.meets(birch)
            for _ in range(12):
                job = await sybil.requester.submit(order(deadline_ms=1500))
                requester = sybil.requester
                await requester.jobs.changed(partial(_promised, requester, job), 10)
                if requester.jobs[job.id].phase is Phase.FAILED:
                    assert WORDS[Unfit.CREDIT] in requester.jobs[job.id].reason
                    break
            else:
                pytest.fail("it is lent without end")
            await sybil.stop()
        lost = sum(book.exposure for book in await birch.ledger.read(lambda reader: reader.books()))
        assert 0 < lost <= policy.private_bucket // 2


async def test_one_reference_is_paid_once_and_nothing_else_is_taken(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        job = await ended(alder, await alder.requester.submit(order(worker=birch.key.id)))
        last = await alder.ledger.read(lambda reader: reader.last_entry(alder.key.id, birch.key.id))
        assert last is not None
        said = last.object
        follows = replace(said, seq=said.seq + 1, prev=last.id, total=MicroCredits(said.total + said.amt))
        forged: list[tuple[Entry, Code]] = [
            (follows, Code.PAID),
            (replace(follows, ref=Digest(b"\7" * 32)), Code.BAD_OBJECT),
            (replace(said, amt=MicroCredits(said.amt + 1), total=MicroCredits(said.total + 1)), Code.CONFLICT),
        ]
        for entry, code in forged:
            with pytest.raises(Refusal) as refused:
                await birch_for(alder, birch).entries((sign(alder.key, entry),))
            assert refused.value.code is code
            assert refused.value.last == last
        with pytest.raises(Refusal, match="signer"):
            await birch_for(cedar, birch).entries((last,))
        book = await birch.ledger.read(lambda reader: reader.book(alder.key.id))
        assert book.owed == job.paid
        assert (await birch.ledger.verify()).faults == ()


async def test_an_account_has_a_bound_of_open_leases(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.gate.clear()
        refused = None
        for _ in range(20):
            try:
                quote = await quoted(alder, birch)
                await birch_for(alder, birch).lease(lease_of(alder, quote, Digest(secrets.token_bytes(32))), quote)
            except Refusal as refusal:
                refused = refusal
                break
            await asyncio.sleep(0.15)  # quotes are counted too
        assert refused is not None
        assert refused.code is Code.BUSY
        assert sum(lease.state.is_open for lease in birch.worker.leases) == 16


async def test_a_ledger_refuses_to_promise_twice_for_one_lease(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        quote = await quoted(alder, birch)
        lease = lease_of(alder, quote, Digest(bytes(32)))
        await alder.ledger.transact("offer", lambda transaction: transaction.reserve(lease))
        with pytest.raises(LedgerError):
            await alder.ledger.transact("offer", lambda transaction: transaction.reserve(lease))
