"""What a worker offers to do a job for. Nothing is stored: a lease comes with the quote, and the worker recognises its own signature."""

from dataclasses import dataclass
from typing import Final

from nexus_edge.clock import ticking_ms
from nexus_edge.identity import NodeKey
from nexus_edge.market import pricing
from nexus_edge.market.admission import Demand, check_memory, check_queue
from nexus_edge.types import NOTHING, Bytes, Digest, MicroCredits, NodeId, UnixMs
from nexus_edge.wire.limits import INPUT, QUEUED_JOBS, QUEUED_MS
from nexus_edge.wire.messages import QuoteRequest
from nexus_edge.wire.objects import Lease, Mode, Quote
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed, sign

TTL_MS: Final = 10_000
"""How long a price holds: longer, and prices would lag behind the load."""
START_FEE_SHARE: Final = 4
"""Of the price, as a divisor: owed for a job that is cancelled after it began, when on average half of the work was done or less."""


@dataclass(frozen=True)
class Forecast:
    """What one job of a model takes on this machine."""

    run_ms: int
    prove_ms: int
    core_run_ms: int
    core_prove_ms: int
    memory: Bytes
    input_bytes: int
    phases_us: tuple[tuple[str, int], ...] = ()
    """Of a run, in their order, in microseconds: as far as one was seen here."""

    @property
    def demand(self) -> Demand:
        """For admission."""
        return Demand(self.memory, self.run_ms + self.prove_ms)


@dataclass(frozen=True)
class Offer:
    """The owner's terms and the machine as it stands."""

    rate: int
    slots: int
    waiting: tuple[Demand, ...]
    running: tuple[Demand, ...]
    available: Bytes
    learned_permille: int
    """Measured peak memory over forecast, at least 1000."""
    queue_jobs: int = QUEUED_JOBS
    queue_ms: int = QUEUED_MS


def quote(key: NodeKey, asker: NodeId, request: QuoteRequest, forecast: Forecast, offer: Offer, room: MicroCredits) -> Signed[Quote]:
    """A signed quote for a model that is here. Raises `Refusal`."""
    check_mode(request.mode)
    if request.size != forecast.input_bytes:
        raise Refusal(Code.BAD_INPUT, f"the model takes {forecast.input_bytes} bytes of input, not {request.size}")
    check_room(forecast, offer)
    backlog = sum(job.ms for job in offer.waiting) // offer.slots
    work = pricing.core_ms(Mode(request.mode), forecast.core_run_ms, forecast.core_prove_ms)
    price = pricing.price(work, offer.rate, backlog_ms=backlog, slots=offer.slots)
    if price > request.max_price:
        raise Refusal(Code.PRICE, f"asks {price} micro-credits, your limit is {request.max_price}")
    running = max((job.ms for job in offer.running), default=0) if len(offer.running) >= offer.slots else 0
    needed = backlog + running + forecast.run_ms + forecast.prove_ms
    if needed > request.deadline_ms:
        # What is not done in time is not paid, however much work went into it.
        over_ms = needed - request.deadline_ms
        raise Refusal(
            Code.BUSY, f"it would take {needed} ms, your limit is {request.deadline_ms}", retry_ms=min(60_000, max(1000, over_ms))
        )
    return _signed(key, asker, request, price=price, forecast=forecast, queue_ms=backlog + running, room=room)


def invitation(key: NodeKey, asker: NodeId, request: QuoteRequest, room: MicroCredits) -> Signed[Quote]:
    """A quote that asks for the model first: it names what is missing, and no lease is taken on it."""
    check_mode(request.mode)
    unknown = Forecast(0, 0, 0, 0, Bytes(0), INPUT)
    return _signed(key, asker, request, MicroCredits(1), unknown, 0, room, missing=(Digest(request.model),))


def check_room(forecast: Forecast, offer: Offer) -> None:
    """Raise a `memory` or `busy` refusal if one more such job does not fit."""
    check_queue(offer.waiting, offer.slots, jobs=offer.queue_jobs, ms=offer.queue_ms)
    check_memory((*offer.running, *offer.waiting, forecast.demand), offer.available, offer.learned_permille)


def check_mode(mode: int) -> None:
    """Raise a refusal for modes that this version does not work in."""
    if mode != Mode.PROVED:
        raise Refusal(Code.MODEL_REFUSED, f"mode {mode} is not offered; this version works in mode {Mode.PROVED.value}, proved")


def check_terms(key: NodeKey, lease: Lease, offered: Signed[Quote], now: UnixMs, since: UnixMs) -> None:
    """Raise a refusal unless the lease takes a quote of ours to this requester, as it was, in time, and signed by this process."""
    terms = offered.object
    if offered.issuer != key.id or terms.to != lease.iss or lease.quote != offered.id or lease.to != key.id:
        raise Refusal(Code.BAD_OBJECT, "the lease takes a quote that we did not make to you")
    if terms.missing:
        raise Refusal(Code.MODEL_MISSING, "the quote named what is missing: put that first, and ask again")
    names = ("model", "sem", "params", "mode", "price", "start_fee", "deadline_ms", "p_ppm", "stake", "audit_ms")
    changed = [name for name in names if getattr(lease, name) != getattr(terms, name)]
    if changed:
        raise Refusal(Code.BAD_OBJECT, f"the lease changes {', '.join(changed)} of the quote")
    # Before this process a lease may have been made of the quote and lost with a restored backup.
    if not max(since, now - TTL_MS) <= terms.at <= now:
        raise Refusal(Code.QUOTE_EXPIRED, f"a quote holds for {terms.ttl_ms} ms: ask again")


def _signed(
    key: NodeKey,
    asker: NodeId,
    request: QuoteRequest,
    price: MicroCredits,
    forecast: Forecast,
    queue_ms: int,
    room: MicroCredits,
    missing: tuple[Digest, ...] = (),
) -> Signed[Quote]:
    return sign(
        key,
        Quote(
            iss=key.id,
            at=ticking_ms(),
            to=asker,
            rid=request.rid,
            model=request.model,
            sem=request.sem,
            params=request.params,
            mode=request.mode,
            in_max=forecast.input_bytes,
            price=price,
            start_fee=MicroCredits(price // START_FEE_SHARE),
            queue_ms=queue_ms,
            run_ms=forecast.run_ms,
            prove_ms=forecast.prove_ms,
            deadline_ms=request.deadline_ms,
            p_ppm=0,
            stake=NOTHING,
            audit_ms=0,
            ttl_ms=TTL_MS,
            room=MicroCredits(max(0, room)),
            missing=missing,
        ),
    )
