"""Finding a worker for a job: asks those who are up, sends the model where it is missing, chooses, and says why not the others."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from nexus_edge.compute import StoreError
from nexus_edge.errors import PeerError
from nexus_edge.identity import short_id
from nexus_edge.market.experience import Experience
from nexus_edge.market.jobs import Job
from nexus_edge.market.placement import TIME_VALUE, Candidate, Rejected, Unfit, Wanted, choose, is_proven, unfit_of
from nexus_edge.transport import PeerConnection
from nexus_edge.types import Digest, MicroCredits, ModelDigest, NodeId
from nexus_edge.wire.limits import CHUNK
from nexus_edge.wire.messages import Chunk, Manifest, QuoteRequest, Upload
from nexus_edge.wire.objects import Quote
from nexus_edge.wire.refusals import Refusal
from nexus_edge.wire.signing import Signed

ASKED: Final = 12
"""Workers asked for a quote at once: enough to choose from, and a dozen signatures spent."""
QUOTES_S: Final = 2.0
"""How long quotes are waited for."""
ENOUGH: Final = 5
"""Quotes after which no more are waited for: those who take longer to answer that they could begin are seldom the better choice."""
BYTES_PER_S: Final = 10_000_000
"""Taken for a line whose speed is not known."""
UPLOAD_TRIES: Final = 600
"""Of a manifest while the worker still checks the model, one every tenth of a second: a minute."""
UPLOAD_SPARE: Final = 64
"""Chunks that are sent again at most, beyond once each: a worker may find some damaged, one that always wants more wants something else."""
UPLOAD_AGAIN_S: Final = 600.0
"""After an upload that came to nothing, others who lack the model are served first for so long."""
REST_S: Final = 5.0
"""The longest that a worker's `retry_ms` keeps us from asking it again: it says when half of its queue is done, and things change."""

log = structlog.get_logger("market")


@dataclass(frozen=True)
class Reachable:
    """A peer that is up."""

    id: NodeId
    connection: PeerConnection
    rtt_ms: int
    near: bool
    """On a network of our own, or named by the owner."""


class Peers(Protocol):
    """Who is there."""

    def up(self) -> Sequence[Reachable]:
        """Peers that answer, those with experience first."""

    def elsewhere(self) -> Mapping[NodeId, str]:
        """Peers that say they are of another mesh, with its name: nobody asks them for anything."""

    def connection(self, peer: NodeId) -> PeerConnection | None:
        """How to reach one; None if no address is known."""

    def others_answer(self, besides: NodeId) -> bool:
        """Whether a peer besides this one answers, or there is no other to tell by."""


class Content(Protocol):
    """Models to send."""

    async def manifest(self, model: ModelDigest) -> Manifest:
        """What a model consists of."""

    def chunks(self, model: ModelDigest, indexes: Sequence[int]) -> AsyncIterator[tuple[int, bytes]]:
        """Its chunks."""


@dataclass(frozen=True)
class Known:
    """What we know of a worker."""

    experience: Experience
    owed: MicroCredits
    excluded: bool
    tried: bool = False
    """Whether it had this job before, or refused a lease for it."""
    trusted: bool = False
    """Whether it is of a fleet of ours, or was granted something: it need not prove itself first."""

    @property
    def is_proven(self) -> bool:
        """Whether it is chosen by cost."""
        return is_proven(self.experience, trusted=self.trusted)


@dataclass(frozen=True)
class Choice:
    """Who may have the job, and why the others may not."""

    best: Candidate | None
    rejected: tuple[Rejected, ...]


class Buyer:
    """Asks for quotes."""

    def __init__(self, peers: Peers, content: Content, time_value: int = TIME_VALUE) -> None:
        """`time_value`: what a second is worth, in micro-credits."""
        self._time_value = time_value
        self._peers = peers
        self._content = content
        self._rests: dict[NodeId, float] = {}
        self._in_vain: dict[tuple[NodeId, ModelDigest], float] = {}

    def rest(self, peer: NodeId, refusal: Refusal) -> None:
        """Ask a peer nothing before the time that its refusal names."""
        now = time.monotonic()
        self._rests = {one: until for one, until in self._rests.items() if until > now}
        if refusal.retry_ms is not None:
            self._rests[peer] = now + min(REST_S, refusal.retry_ms / 1000)

    async def choose(self, job: Job, known: Callable[[NodeId], Known], left_ms: int) -> Choice:
        """The best worker now. Sends the model to one worker if nobody who fits has it."""
        elsewhere = {peer: mesh for peer, mesh in self._peers.elsewhere().items() if job.worker in (None, peer)}
        asked = [peer for peer in self._peers.up() if job.worker in (None, peer.id) and peer.id not in elsewhere][:ASKED]
        choice = await self._choose(asked, job, known, left_ms)
        others = [Rejected(peer, Unfit.MESH, f"it is in the mesh {mesh!r}") for peer, mesh in elsewhere.items()]
        return replace(choice, rejected=(*choice.rejected, *others[:ASKED]))

    async def _choose(self, asked: Sequence[Reachable], job: Job, known: Callable[[NodeId], Known], left_ms: int) -> Choice:
        wanted = Wanted(job.id, job.max_price, left_ms, job.input_bytes, self._time_value)
        rejected: list[Rejected] = []
        fresh: list[Reachable] = []
        for peer in asked:
            if known(peer.id).excluded:
                rejected.append(Rejected(peer.id, Unfit.EXCLUDED, "it sent a false proof"))
            elif self._rests.get(peer.id, 0.0) > time.monotonic():
                rejected.append(Rejected(peer.id, Unfit.RESTING, "it asked not to be asked yet"))
            else:
                fresh.append(peer)
        candidates, lacking = [], []
        for peer, quote in zip(fresh, await self._quotes(fresh, job, left_ms), strict=True):
            if isinstance(quote, Rejected):
                rejected.append(quote)
            elif quote.object.missing:
                lacking.append(peer)
            else:
                candidates.append(self._candidate(peer, quote, known(peer.id)))
        # Whoever had the job and did not do it gets it again only if nobody else can.
        new = [candidate for candidate in candidates if not known(candidate.worker).tried]
        best, unfit = choose(new, wanted)
        if best is None and lacking:
            return await self._after_sending(job, known, left_ms, lacking, [*rejected, *unfit])
        rejected += [Rejected(peer.id, Unfit.MODEL, "it lacks the model") for peer in lacking]
        tried = [candidate for candidate in candidates if known(candidate.worker).tried]
        if best is None:
            best, still = choose(tried, wanted)
            return Choice(best, (*rejected, *unfit, *still))
        again = [Rejected(one.worker, Unfit.TRIED, "it had the job before, another is tried") for one in tried]
        return Choice(best, (*rejected, *unfit, *again))

    async def _after_sending(
        self, job: Job, known: Callable[[NodeId], Known], left_ms: int, lacking: list[Reachable], rejected: list[Rejected]
    ) -> Choice:
        """Send the model to the nearest of those who lack it, and ask that one again."""
        now = time.monotonic()
        self._in_vain = {pair: until for pair, until in self._in_vain.items() if until > now}

        def order(one: Reachable) -> tuple[bool, bool, bool, int]:
            return (one.id, job.model) in self._in_vain, not known(one.id).is_proven, not one.near, one.rtt_ms

        peer = min(lacking, key=order)
        others = [Rejected(one.id, Unfit.MODEL, "it lacks the model") for one in lacking if one is not peer]
        quote: Signed[Quote] | Rejected
        try:
            async with asyncio.timeout(left_ms / 1000):
                await self.send_model(peer.connection, job.model)
            quote = await self._quote(peer, job, left_ms)
        except (PeerError, Refusal, StoreError, TimeoutError) as failed:
            why = str(failed) or "it takes longer than the job may"
            quote = Rejected(peer.id, Unfit.MODEL, f"the model could not be sent: {why}")
        if isinstance(quote, Signed) and quote.object.missing:
            quote = Rejected(peer.id, Unfit.MODEL, "it still lacks the model")
        if isinstance(quote, Rejected):
            self._in_vain[(peer.id, job.model)] = now + UPLOAD_AGAIN_S
            return Choice(None, (*rejected, *others, quote))
        best, unfit = choose(
            [self._candidate(peer, quote, known(peer.id))], Wanted(job.id, job.max_price, left_ms, job.input_bytes, self._time_value)
        )  # fmt: skip
        return Choice(best, (*rejected, *others, *unfit))

    async def send_model(self, connection: PeerConnection, model: ModelDigest) -> None:
        """Send what the worker lacks of a model. An upload that broke off goes on where it was."""
        manifest = await self._content.manifest(model)
        digest = Digest(model)
        answer = await connection.put_object(digest, Upload(manifest, None))
        tries, left = 0, len(manifest.chunks) + UPLOAD_SPARE
        while not answer.complete:
            if not answer.missing:
                tries += 1
                if tries > UPLOAD_TRIES:
                    raise PeerError("the worker does not finish checking the model")
                await asyncio.sleep(0.1)
            left -= len(answer.missing)
            if left < 0 or any(index >= len(manifest.chunks) for index in answer.missing):
                raise PeerError("the upload is given up", "the worker asks for more than the model has")
            async for index, data in self._content.chunks(model, answer.missing):
                if len(data) > CHUNK:
                    raise PeerError("a chunk is too large")
                answer = await connection.put_object(digest, Upload(None, Chunk(index, data)))
            if not answer.complete:
                answer = await connection.put_object(digest, Upload(manifest, None))

    async def _quotes(self, peers: Sequence[Reachable], job: Job, left_ms: int) -> list[Signed[Quote] | Rejected]:
        """What each says, as far as it is waited for."""
        asked = [asyncio.create_task(self._quote(peer, job, left_ms), name=f"quote of {short_id(peer.id)}") for peer in peers]
        try:
            waiting, ready = set(asked), 0
            while waiting and ready < ENOUGH:
                answered, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                quotes = [quote for one in answered if isinstance(quote := one.result(), Signed)]
                ready += sum(not quote.object.missing for quote in quotes)
        finally:
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        late = "it had not answered when there were enough quotes"
        return [Rejected(peer.id, Unfit.OFFLINE, late) if one.cancelled() else one.result() for peer, one in zip(peers, asked, strict=True)]

    async def _quote(self, peer: Reachable, job: Job, left_ms: int) -> Signed[Quote] | Rejected:
        request = QuoteRequest(
            secrets.token_bytes(16), Digest(job.model), job.sem, job.params, job.mode.value, job.input_bytes, job.max_price, max(1, left_ms)
        )  # fmt: skip
        try:
            async with asyncio.timeout(QUOTES_S):
                quote = await peer.connection.quote(request)
        except Refusal as refusal:
            self.rest(peer.id, refusal)
            return Rejected(peer.id, unfit_of(refusal.code), refusal.text)
        except (PeerError, TimeoutError) as failed:
            log.debug("no quote", peer=short_id(peer.id), reason=str(failed))
            return Rejected(peer.id, Unfit.OFFLINE, f"no answer: {failed}")
        asked = (request.rid, request.model, request.sem, request.params)
        said = quote.object
        if (said.rid, said.model, said.sem, said.params) != asked:
            return Rejected(peer.id, Unfit.REFUSED, "its quote is for something else")
        if said.mode != request.mode:
            return Rejected(peer.id, Unfit.MODE, f"it offers mode {said.mode}, not {request.mode}")
        return quote

    @staticmethod
    def _candidate(peer: Reachable, quote: Signed[Quote], known: Known) -> Candidate:
        return Candidate(peer.id, quote, known.experience, peer.rtt_ms, BYTES_PER_S, known.owed, peer.near, known.trusted)
