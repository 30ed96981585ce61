"""Workers that take jobs and do not do them, or never end: the job goes on elsewhere or ends in time, and nothing is paid."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from nexus_edge.clock import now_ms
from nexus_edge.compute.errors import ModelMissing
from nexus_edge.errors import PeerError
from nexus_edge.market.evidence import Verdict, check_invalid_proof
from nexus_edge.market.jobs import Outcome, Phase
from nexus_edge.market.leases import State
from nexus_edge.market.placement import WORDS, Unfit
from nexus_edge.market.running import Died
from nexus_edge.market.settling import Till
from nexus_edge.transport import PeerConnection
from nexus_edge.types import Digest, MicroCredits, UnixMs
from nexus_edge.wire.digests import blob_digest
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.fields import Text
from nexus_edge.wire.messages import EntriesAnswer, InputUpload, Manifest, ObjectPart, ResultAnswer, UploadAnswer
from nexus_edge.wire.objects import Evidence
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import read_stored, sign
from tests.attacks.test_market import ended, order, owes_nothing, wrong_output
from tests.support.trade import Trader, traders

pytestmark = pytest.mark.asyncio


def prefer(monkeypatch: pytest.MonkeyPatch, worker: Trader) -> None:
    """Among unproven workers this one is drawn first, in every job."""
    monkeypatch.setattr("nexus_edge.market.placement.tie", lambda _, one: one != worker.key.id)


async def dies(*_: Any) -> Any:
    raise Died("the job failed", "on purpose", again=False)


async def declines(*_: Any) -> Any:
    raise Refusal(Code.BUSY, "never for you", retry_ms=2**53 - 1)


@pytest.mark.parametrize("how", ["dies", "declines", "lies"])
async def test_a_worker_that_does_not_do_it_is_not_asked_again_while_another_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        prefer(monkeypatch, birch)
        outcome = {"dies": Outcome.FAILED, "declines": Outcome.DECLINED, "lies": Outcome.INVALID}[how]
        if how == "dies":
            monkeypatch.setattr(birch.local, "prove", dies)
        elif how == "declines":
            monkeypatch.setattr(birch.worker, "lease", declines)
        else:
            birch.local.spoil = wrong_output
        job = await ended(alder, await alder.requester.submit(order()))
        assert job.phase is Phase.SETTLED
        assert [(one.worker, one.outcome) for one in job.attempts] == [(birch.key.id, outcome), (cedar.key.id, Outcome.VERIFIED)]
        assert await owes_nothing(alder, birch)
        assert alder.requester.workers.experience.get(birch.key.id) is None or how != "declines"


async def test_the_evidence_of_a_false_proof_convinces_others(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.spoil = wrong_output
        job = await ended(alder, await alder.requester.submit(order(deadline_ms=3000)))
        rows = await alder.ledger.read(
            lambda reader: reader._connection.execute("SELECT body, sig FROM objects WHERE t = 'evidence'").fetchall()
        )
        (evidence,) = [read_stored(Evidence, *row) for row in rows]
        assert evidence.object.about == birch.key.id
        assert len(evidence.object.parts) == 3
        assert evidence.object.blobs[0] == job.attempts[0].proof
        contents = {digest: content for digest in evidence.object.blobs if (content := await alder.blobs.get(Digest(digest))) is not None}
        assert check_invalid_proof(evidence.object, contents).verdict is Verdict.PROVEN


async def test_one_who_always_declines_costs_a_few_offers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        monkeypatch.setattr(birch.worker, "lease", declines)
        job = await ended(alder, await alder.requester.submit(order(deadline_ms=2500)))
        assert job.phase is Phase.FAILED
        assert [one.outcome for one in job.attempts] == [Outcome.DECLINED], "it asked to be left alone, and was"


@pytest.mark.parametrize(
    ("terms", "why"),
    [({"start_fee": MicroCredits(10**9)}, Unfit.PRICE), ({"stake": MicroCredits(1)}, Unfit.REFUSED), ({"p_ppm": 1}, Unfit.REFUSED)],
)
async def test_terms_that_nobody_should_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terms: dict[str, Any], why: Unfit) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        honest = birch.worker.quote

        async def quote(*asked: Any) -> Any:
            return sign(birch.key, replace((await honest(*asked)).object, **terms))

        monkeypatch.setattr(birch.worker, "quote", quote)
        job = await ended(alder, await alder.requester.submit(order(deadline_ms=1000)))
        assert job.attempts == ()
        assert f"1 {WORDS[why]}" in job.reason


async def test_a_proof_that_drips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_edge.market.worker.SMALL_ANSWER", 0)
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        honest = birch.worker.get_object

        async def get_object(caller: Any, digest: Digest, start: int, _: int) -> ObjectPart:
            return await honest(caller, digest, start, 1)

        monkeypatch.setattr(birch.worker, "get_object", get_object)
        job = await ended(alder, await alder.requester.submit(order(deadline_ms=3000)))
        assert job.attempts[0].outcome is Outcome.INVALID
        assert await owes_nothing(alder, birch)


@pytest.mark.parametrize("spoiled", [lambda content: content[:-1], lambda content: content + b"x", lambda content: content[:-1] + b"x"])
async def test_a_proof_that_comes_with_the_poll_is_checked_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoiled: Callable[[bytes], bytes]
) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        honest = birch.worker.result

        async def result(*asked: Any) -> ResultAnswer:
            answer = await honest(*asked)
            assert answer.content is not None
            return replace(answer, content=spoiled(answer.content))

        monkeypatch.setattr(birch.worker, "result", result)
        job = await ended(alder, await alder.requester.submit(order(deadline_ms=3000)))
        assert job.attempts[0].outcome is Outcome.INVALID
        assert await owes_nothing(alder, birch)


async def test_only_the_first_worker_that_is_asked_gets_the_input_unaccepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever declines has seen it, and each copy counts against what the commitment may be opened."""
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        prefer(monkeypatch, birch)
        came = []

        async def declining(*asked: Any) -> Any:
            came.append(asked[-1])
            raise Refusal(Code.BUSY, "never for you", retry_ms=10_000)

        honest = cedar.worker.lease

        async def taking(caller: Any, lease: Any, quote: Any, upload: InputUpload | None) -> Any:
            came.append(upload)
            return await honest(caller, lease, quote, upload)

        monkeypatch.setattr(birch.worker, "lease", declining)
        monkeypatch.setattr(cedar.worker, "lease", taking)
        job = await ended(alder, await alder.requester.submit(order()))
        assert job.phase is Phase.SETTLED
        assert [upload is not None for upload in came] == [True, False]


@pytest.mark.parametrize("state", ["dreaming", "proving", "unpaid"])
async def test_a_worker_that_says_anything_but_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """It beats for ever, is in a state that there is not, or has a result that it does not give: its deadline ends it, and it is not asked faster."""
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        honest, polls = birch.worker.poll, 0

        async def poll(caller: Any, lease: Digest, after: int, _: int) -> Any:
            nonlocal polls
            polls += 1
            return replace(await honest(caller, lease, after, 0), state=state, beat=polls, reason="x" * 200, events=())

        birch.local.gate.clear()
        monkeypatch.setattr(birch.worker, "poll", poll)
        job = await ended(alder, await alder.requester.submit(order(deadline_ms=3000)))
        assert [one.outcome for one in job.attempts] == [Outcome.LOST]
        assert polls < 60
        assert await owes_nothing(alder, birch)
        birch.local.gate.set()


async def test_a_fee_that_was_not_agreed_is_not_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        honest = birch.worker.cancel

        async def cancel(caller: Any, lease: Digest) -> Any:
            return replace(await honest(caller, lease), owed=MicroCredits(1))

        birch.local.gate.clear()
        monkeypatch.setattr(birch.worker, "cancel", cancel)
        job = await alder.requester.submit(order())
        assert await birch.worker.leases.changed(lambda: any(work.phase for work in birch.worker.book.work.values()), 5)
        assert alder.requester.jobs[job.id].attempt.start_fee > 1
        done = await ended(alder, await alder.requester.cancel(job.id))
        assert (done.phase, done.paid) == (Phase.CANCELLED, 0)
        birch.local.gate.set()


async def test_a_fee_for_work_that_has_not_begun_is_not_paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the worker said right before it was told decides, not what it says afterwards."""
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        honest = birch.worker.cancel

        async def cancel(caller: Any, lease: Digest) -> Any:
            return replace(await honest(caller, lease), owed=birch.worker.leases[lease].start_fee)

        birch.local.gate.clear()
        monkeypatch.setattr(birch.worker, "cancel", cancel)
        jobs = [await alder.requester.submit(order()) for _ in range(2)]
        assert await birch.worker.leases.changed(lambda: sum(lease.state is State.QUEUED for lease in birch.worker.leases) == 2, 5)
        assert await birch.worker.leases.changed(lambda: any(work.phase for work in birch.worker.book.work.values()), 5)
        waiting = next(job for job in jobs if not birch.worker.book.work[alder.requester.jobs[job.id].attempt.lease].phase)
        done = await ended(alder, await alder.requester.cancel(waiting.id))
        assert done.attempt.start_fee > 0
        assert (done.phase, done.paid) == (Phase.CANCELLED, 0)
        birch.local.gate.set()


class Models:
    """What a requester sends of a model: one chunk."""

    def __init__(self) -> None:
        self.sent = 0

    async def manifest(self, _: Any) -> Manifest:
        return Manifest(5, (blob_digest(b"model"),))

    async def chunks(self, _: Any, indexes: Sequence[int]) -> AsyncIterator[tuple[int, bytes]]:
        for index in indexes:
            self.sent += 1
            yield index, b"model"


@pytest.mark.parametrize("missing", [(0,), (7,), ()])
async def test_a_worker_that_never_has_enough_of_a_model(tmp_path: Path, missing: tuple[int, ...]) -> None:
    """Another that lacks the model gets it then, and does the job."""
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        models = Models()
        alder.manifest, alder.chunks = models.manifest, models.chunks  # type: ignore[attr-defined]
        alder.known = {peer: alder.known[peer] for peer in (birch.key.id, cedar.key.id)}  # birch first

        async def endless(*_: Any) -> UploadAnswer:
            return UploadAnswer(missing, False)

        async def enough(*_: Any) -> UploadAnswer:
            cedar.local.present = True
            return UploadAnswer((), True)

        birch.local.present = cedar.local.present = False
        birch.put, cedar.put = endless, enough  # type: ignore[attr-defined]
        # One that asks for nothing, and never says that it has all, may be checking the model: that takes until the time is up.
        if missing:
            job = await ended(alder, await alder.requester.submit(order()))
            assert job.phase is Phase.SETTLED
            assert [one.worker for one in job.attempts] == [cedar.key.id]
        else:
            job = await ended(alder, await alder.requester.submit(order(deadline_ms=1500)))
            assert job.phase is Phase.FAILED
            job = await ended(alder, await alder.requester.submit(order()))
            assert job.phase is Phase.SETTLED
        assert models.sent <= 100


async def test_a_creditor_that_acknowledges_nothing_is_asked_ever_more_rarely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    posts = 0

    async def silent(*_: Any) -> EntriesAnswer:
        nonlocal posts
        posts += 1
        return EntriesAnswer((), None)

    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        with monkeypatch.context() as lying:
            lying.setattr(Till, "entries", silent)
            job = await alder.requester.submit(order())
            assert await alder.requester.jobs.changed(lambda: alder.requester.jobs[job.id].phase is Phase.PAYING, 20)
            await asyncio.sleep(3)
            assert 0 < posts <= 6
        alder.requester.payer.wake(birch.key.id)
        assert (await ended(alder, job)).phase is Phase.SETTLED


@pytest.mark.parametrize("skew_h", [-1, 1])
async def test_a_worker_whose_clock_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skew_h: int) -> None:
    def skewed() -> UnixMs:
        return UnixMs(now_ms() + skew_h * 3_600_000)

    for module in ("worker", "letting", "leasebook", "running", "settling"):
        monkeypatch.setattr(f"nexus_edge.market.{module}.now_ms", skewed)
    for module in ("letting", "quoting"):
        monkeypatch.setattr(f"nexus_edge.market.{module}.ticking_ms", skewed)
    async with traders(tmp_path, "alder", "birch") as (alder, _):
        job = await ended(alder, await alder.requester.submit(order()))
        assert job.phase is Phase.SETTLED


@pytest.mark.parametrize("jump_h", [-1, 1])
async def test_clocks_that_are_set_in_the_middle_of_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_h: int) -> None:
    """Of the machine with both traders: deadlines, prices that hold, payments and experience do not depend on it."""
    honest = time.time_ns
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.gate.clear()
        job = await alder.requester.submit(order())
        assert await birch.worker.leases.changed(lambda: any(work.phase for work in birch.worker.book.work.values()), 5)
        monkeypatch.setattr("time.time_ns", lambda: honest() + jump_h * 3_600_000_000_000)
        birch.local.gate.set()
        assert (await ended(alder, job)).phase is Phase.SETTLED
        again = await ended(alder, await alder.requester.submit(order(deadline_ms=10_000)))
        assert again.phase is Phase.SETTLED, again
        assert len(again.attempts) == 1
        for trader in (alder, birch):
            assert (await trader.ledger.verify()).faults == ()


async def test_a_queue_that_does_not_move_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that accepts and never begins has no beat to lose; it said how long its queue is."""
    monkeypatch.setattr("nexus_edge.market.watching.LOST_S", 0.5)
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        prefer(monkeypatch, birch)
        honest = birch.worker.poll

        async def poll(caller: Any, lease: Digest, after: int, _: int) -> Any:
            return replace(await honest(caller, lease, after, 0), state="queued", beat=0)

        monkeypatch.setattr(birch.worker, "poll", poll)
        birch.local.gate.clear()
        job = await ended(alder, await alder.requester.submit(order(deadline_ms=60_000)))
        assert job.phase is Phase.SETTLED
        assert [(one.worker, one.outcome) for one in job.attempts] == [(birch.key.id, Outcome.LOST), (cedar.key.id, Outcome.VERIFIED)]
        birch.local.gate.set()


async def test_why_a_worker_failed_is_said_whatever_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a child wrote before it died may be of any length and hold anything."""

    async def dies_loudly(*_: Any) -> Any:
        raise Died("the child died", "\x1b[2J\n" + 300 * "e\u0301", again=False)

    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        monkeypatch.setattr(birch.local, "prove", dies_loudly)
        job = await alder.requester.submit(order(deadline_ms=5000))
        assert await alder.requester.jobs.changed(lambda: bool(alder.requester.jobs[job.id].attempts), 5)
        assert await alder.requester.jobs.changed(lambda: alder.requester.jobs[job.id].attempts[0].outcome is Outcome.FAILED, 3)
        assert "the child died" in alder.requester.jobs[job.id].attempts[0].reason
        await alder.requester.cancel(job.id)


async def test_a_reason_that_is_no_text_of_the_ledger_holds_up_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the path of a folder whose name is not in the one form of Unicode, or in no form at all."""

    async def gone(*_: object) -> None:
        raise ModelMissing("the model is not here", "/home/cafe\u0301/\udcff")

    async with traders(tmp_path, "alder", "birch") as (alder, _):
        monkeypatch.setattr(alder.local, "verify", gone)
        job = await ended(alder, await alder.requester.submit(order()))
        assert job.phase is Phase.FAILED
        assert "/home/caf\u00e9/?" in job.reason


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b2J", "a\u202eb", "a\u2028b", "\x7f"])
async def test_texts_that_terminals_obey_are_no_texts(text: str) -> None:
    with pytest.raises(BadObject, match="control characters"):
        Text(24).read(text)


@pytest.mark.parametrize("code", [Code.RATE, Code.TIMEOUT, Code.INTERNAL])
async def test_a_refusal_of_a_second_copy_lets_go_of_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: Code) -> None:
    """The first was accepted and its answer lost: whoever gave the lease up now would leave it open at the worker."""
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        honest, copies = birch.worker.lease, 0

        async def lease(*asked: Any) -> Any:
            nonlocal copies
            copies += 1
            accept = await honest(*asked)
            if copies < 3:
                raise Refusal(Code.INTERNAL if copies == 1 else code, "not heard", retry_ms=10)
            return accept

        monkeypatch.setattr(birch.worker, "lease", lease)
        job = await ended(alder, await alder.requester.submit(order()))
        assert (job.phase, len(job.attempts), copies) == (Phase.SETTLED, 1, 3)
        assert [one.id for one in birch.worker.leases] == [job.attempt.lease]


@contextlib.contextmanager
def busy_for(monkeypatch: pytest.MonkeyPatch, lost: Exception, copies: frozenset[int]) -> Iterator[None]:
    """The answer to the first copy of a lease is lost, and some later ones meet a worker that is too busy to look whether it knows it."""
    honest, sent = PeerConnection.lease, 0

    async def lease(self: PeerConnection, *asked: Any) -> Any:
        nonlocal sent
        sent += 1
        if sent in copies:
            raise Refusal(Code.BUSY, "too many large bodies at once", retry_ms=10)
        accept = await honest(self, *asked)
        if sent == 1:
            raise lost
        return accept

    with monkeypatch.context() as patch:
        patch.setattr("nexus_edge.market.offering.SENDS_S", 0.03)
        patch.setattr(PeerConnection, "lease", lease)
        yield


LOST: Final = (Refusal(Code.INTERNAL, "not heard", retry_ms=10), PeerError("the answer is lost"))


@pytest.mark.parametrize("lost", LOST)
async def test_a_busy_worker_that_has_the_lease_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: Exception) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        prefer(monkeypatch, birch)
        with busy_for(monkeypatch, lost, frozenset({2})):
            job = await ended(alder, await alder.requester.submit(order()))
        assert [(one.worker, one.outcome) for one in job.attempts] == [(birch.key.id, Outcome.VERIFIED)]
        assert list(cedar.worker.leases) == []


@pytest.mark.parametrize("lost", LOST)
async def test_a_lease_that_is_refused_after_a_copy_was_accepted_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: Exception
) -> None:
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        prefer(monkeypatch, birch)
        birch.local.gate.clear()
        with busy_for(monkeypatch, lost, frozenset({2, 3})):
            job = await ended(alder, await alder.requester.submit(order()))
        assert [(one.worker, one.outcome) for one in job.attempts] == [(birch.key.id, Outcome.DECLINED), (cedar.key.id, Outcome.VERIFIED)]
        orphan = job.attempts[0].lease
        assert await birch.worker.leases.changed(lambda: birch.worker.leases[orphan].state is State.CANCELLED, 5)
        # A small input came with it, so that birch may have begun: a fee that alder does not sign, as it heard of no lease.
        assert birch.worker.leases[orphan].owed <= job.attempts[0].start_fee
        assert (await birch.ledger.read(lambda reader: reader.book(alder.key.id))).exposure == birch.worker.leases[orphan].owed
        book = await alder.ledger.read(lambda reader: reader.book(birch.key.id))
        assert (book.owed, book.reserved_out) == (0, 0)
        assert birch.local.pins == 0


async def test_a_worker_that_hears_no_lease_does_not_keep_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_edge.market.offering.PATIENCE_S", 0.05)
    async with traders(tmp_path, "alder", "birch", "cedar") as (alder, birch, cedar):
        prefer(monkeypatch, birch)

        async def lease(*_: Any) -> Any:
            raise Refusal(Code.RATE, "always too many", retry_ms=3_600_000)

        monkeypatch.setattr(birch.worker, "lease", lease)
        job = await ended(alder, await alder.requester.submit(order()))
        assert [(one.worker, one.outcome) for one in job.attempts] == [(birch.key.id, Outcome.LOST), (cedar.key.id, Outcome.VERIFIED)]
        assert job.phase is Phase.SETTLED


async def test_a_result_that_never_comes_holds_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker says at once that it is done, and hands out nothing: what fetching may take is counted from the job's own time."""
    monkeypatch.setattr("nexus_edge.market.checking.FETCH_S", 0.5)
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        birch.local.gate.clear()
        poll = birch.worker.poll

        async def boasts(caller: Any, lease: Digest, after: int, _: int) -> Any:
            return replace(await poll(caller, lease, after, 0), state="unpaid")

        async def hangs(*_: Any) -> Any:
            await asyncio.Event().wait()

        monkeypatch.setattr(birch.worker, "poll", boasts)
        monkeypatch.setattr(birch.worker, "result", hangs)
        job = await alder.requester.wait((await alder.requester.submit(order(deadline_ms=1_000))).id, 15)
        assert (job.phase, job.paid, job.attempts[0].outcome) == (Phase.FAILED, 0, Outcome.LOST)
        assert await owes_nothing(alder, birch)
