"""Watching a worker at work: gives the input, polls, and decides when it is lost."""

import asyncio
import time
from typing import Final

import structlog

from nexus_edge.errors import PeerError
from nexus_edge.identity import short_id
from nexus_edge.market.attempts import OVERTIME, PATIENCE_S, Attempts
from nexus_edge.market.checking import Answers
from nexus_edge.market.jobs import Job, Outcome
from nexus_edge.wire.limits import LONG_POLL_MS
from nexus_edge.wire.objects import Lease, Quote
from nexus_edge.wire.refusals import Code, Refusal

SUSPECT_S: Final = 15.0
LOST_S: Final = 30.0
"""Without a beat, a worker is suspect, then lost: beats come every 5 seconds while work progresses."""
QUEUE_PATIENCE: Final = 4
"""A job that waits so many times longer than its quote said, and then as long as a silent worker may be silent, waits for nothing."""
POLLS: Final = 20
POLL_PAUSE_S: Final = 0.1
"""After so many polls there is a pause before each: an honest worker answers when something has happened, another could keep us busy."""

log = structlog.get_logger("market")


class Watching:
    """From `accepted` to what the worker delivers."""

    def __init__(self, attempts: Attempts, answers: Answers) -> None:
        self._attempts = attempts
        self._answers = answers

    async def watch(self, job: Job) -> None:
        """Give the input, watch the worker, fetch what it made."""
        connection = self._attempts.peers.connection(job.attempt.worker)
        if connection is None:
            await self._attempts.give_up(job, Outcome.LOST, "its address is not known any more")
            return
        live = self._attempts.live[job.id]
        live.accepted, live.unanswered = live.accepted or time.monotonic(), ""
        lease = job.attempt.lease
        order = (await self._attempts.kept(lease)).of(Lease).object
        deadline = live.accepted + OVERTIME * order.deadline_ms / 1000
        quote = (await self._attempts.kept(order.quote)).of(Quote).object
        begins = live.accepted + LOST_S + QUEUE_PATIENCE * quote.queue_ms / 1000
        heard = beaten = time.monotonic()
        beat, after, polls = -1, 0, 0
        while True:
            polls += 1
            if polls > POLLS:
                await asyncio.sleep(POLL_PAUSE_S)
            now = time.monotonic()
            live.suspect = now - min(heard, beaten) > SUSPECT_S
            silent = now - min(heard, beaten) > LOST_S and self._attempts.peers.others_answer(job.attempt.worker)
            if silent or now > deadline:
                await self._attempts.give_up(job, Outcome.LOST, "it is silent" if silent else "it is over the time that it promised")
                return
            try:
                if not live.given:
                    await connection.put_input(lease, await self._attempts.input(job))
                    live.given = True
                status = await connection.poll(lease, after, min(LONG_POLL_MS, 5000))
            except Refusal as refusal:
                if refusal.code in (Code.RATE, Code.BUSY):
                    await asyncio.sleep(min(PATIENCE_S, (refusal.retry_ms or 1000) / 1000))
                    continue
                await self._attempts.give_up(job, Outcome.FAILED, f"{refusal.code.value}: {refusal.text}")
                return
            except PeerError as failed:
                log.info("the worker does not answer", peer=short_id(job.attempt.worker), reason=str(failed))
                live.unanswered = str(failed)
                await self._attempts.jobs.touched()
                await asyncio.sleep(1)
                continue
            heard = time.monotonic()
            live.status, live.heard, live.unanswered = status, heard, ""
            after = max([after, *(event.n for event in status.events)])
            # Who waits in a queue has no beat; who works has.
            if status.beat != beat or (status.state not in ("executing", "proving") and heard < begins):
                beat, beaten = status.beat, heard
            await self._attempts.jobs.touched()
            if status.state in ("unpaid", "settled"):
                await self._answers.fetch(job, connection, order, status.answer)
                return
            if status.state in ("expired", "cancelled", "failed"):
                await self._attempts.give_up(job, Outcome.FAILED, f"{status.state}: {status.reason}")
                return
