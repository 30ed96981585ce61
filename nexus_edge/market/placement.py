"""Which worker gets a job: hard filters with a reason each, then the smallest expected cost among those who have proven themselves.

The exploration lane, which tries unknown workers, is not here yet but for the case that nobody is proven: then one of those with an
unknown worker is tried in an order that neither prices nor claims can influence.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nexus_edge.market.experience import PPM, Experience
from nexus_edge.types import Digest, JobId, MicroCredits, NodeId
from nexus_edge.wire.digests import derive
from nexus_edge.wire.objects import Quote
from nexus_edge.wire.refusals import Code
from nexus_edge.wire.signing import Signed

TIME_VALUE: Final = 2000
"""What a second of waiting is worth to a requester, in micro-credits."""
OWED_SHARE: Final = 8
"""A worker who owes us is preferred by an eighth of what the job would settle of that."""


class Unfit(StrEnum):
    """Why a worker cannot have the job."""

    OFFLINE = "offline"
    VERSION = "version"
    MESH = "mesh"
    MODEL = "model"
    MODE = "mode"
    PRICE = "price"
    DEADLINE = "deadline"
    CREDIT = "no-credit"
    MEMORY = "memory"
    BUSY = "busy"
    EXCLUDED = "excluded"
    UNPROVEN = "lane-closed"
    TRIED = "tried"
    RESTING = "resting"
    REFUSED = "refused"


WORDS: Final = {
    Unfit.OFFLINE: "silent",
    Unfit.VERSION: "of another version",
    Unfit.MESH: "of another mesh",
    Unfit.MODEL: "without the model",
    Unfit.MODE: "of another mode",
    Unfit.PRICE: "asking more than the job may cost",
    Unfit.DEADLINE: "too slow for its time",
    Unfit.CREDIT: "giving us no more credit",
    Unfit.MEMORY: "short of memory",
    Unfit.BUSY: "busy",
    Unfit.EXCLUDED: "excluded for a false proof",
    Unfit.UNPROVEN: "not proven yet",
    Unfit.TRIED: "tried before",
    Unfit.RESTING: "asking not to be asked yet",
    Unfit.REFUSED: "refusing",
}
"""After a number of workers."""


@dataclass(frozen=True)
class Candidate:
    """A worker with its quote, and what we know of it."""

    worker: NodeId
    quote: Signed[Quote]
    experience: Experience
    rtt_ms: int
    bytes_per_s: int
    owed: MicroCredits
    """What it owes us; negative: what we owe it."""
    near: bool
    """On a private network of ours, or an address that the owner gave."""
    trusted: bool = False
    """A member of a fleet of ours, or one whom the owner granted something."""

    @property
    def is_proven(self) -> bool:
        """Whether it is chosen by cost."""
        return is_proven(self.experience, trusted=self.trusted)


@dataclass(frozen=True)
class Rejected:
    """A worker that did not get the job."""

    worker: NodeId
    why: Unfit
    text: str
    price: MicroCredits | None = None
    expected_ms: int | None = None


@dataclass(frozen=True)
class Wanted:
    """What the job asks of a worker."""

    job: JobId
    max_price: MicroCredits
    deadline_ms: int
    input_bytes: int
    time_value: int = TIME_VALUE


def is_proven(experience: Experience, *, trusted: bool) -> bool:
    """Whether a worker has proven itself by what it did for us, or need not by the owner's word, until it fails more than it succeeds."""
    return experience.is_proven or (trusted and experience.failures <= experience.successes)


def expected_ms(candidate: Candidate, wanted: Wanted) -> int:
    """How long the job would take there."""
    quote = candidate.quote.object
    transfer = 1000 * wanted.input_bytes // max(1, candidate.bytes_per_s)
    working = (quote.run_ms + quote.prove_ms) * candidate.experience.slowness_permille // 1000
    return candidate.rtt_ms + transfer + quote.queue_ms + working


def cost(candidate: Candidate, wanted: Wanted) -> int:
    """What the job is expected to cost there, in micro-credits: price, waiting, the risk of failure, less what it settles of a debt to us."""
    quote = candidate.quote.object
    waiting = wanted.time_value * expected_ms(candidate, wanted) // 1000
    failing = quote.start_fee + wanted.time_value * wanted.deadline_ms // 1000
    settled = min(quote.price, max(0, candidate.owed)) // OWED_SHARE
    return quote.price + waiting + candidate.experience.p_fail * failing // PPM - settled


def choose(candidates: Sequence[Candidate], wanted: Wanted) -> tuple[Candidate | None, list[Rejected]]:
    """The worker to lease from, and why not the others. None if nobody fits."""
    fit: list[Candidate] = []
    rejected: list[Rejected] = []
    for candidate in candidates:
        why = _unfit(candidate, wanted)
        if why is None:
            fit.append(candidate)
        else:
            rejected.append(_reject(candidate, wanted, *why))
    proven = [candidate for candidate in fit if candidate.is_proven]
    if proven:
        best = min(proven, key=lambda one: (cost(one, wanted), tie(wanted.job, one.worker)))
        for candidate in fit:
            if candidate in proven and candidate is not best:
                why_not = f"expected cost {cost(candidate, wanted)}, chosen {cost(best, wanted)}"
                rejected.append(_reject(candidate, wanted, Unfit.PRICE, why_not))
            elif candidate is not best:
                rejected.append(_reject(candidate, wanted, Unfit.UNPROVEN, "it has not proven itself here, others have"))
        return best, rejected
    if not fit:
        return None, rejected
    best = min(fit, key=lambda one: (not one.near, tie(wanted.job, one.worker)))
    rejected += [_reject(one, wanted, Unfit.UNPROVEN, "nobody is proven yet, another was drawn") for one in fit if one is not best]
    return best, rejected


def tie(job: JobId, worker: NodeId) -> Digest:
    """An order of workers that differs from job to job."""
    return derive("placement", job, worker)


def _unfit(candidate: Candidate, wanted: Wanted) -> tuple[Unfit, str] | None:
    quote = candidate.quote.object
    if (quote.stake, quote.p_ppm) != (0, 0):
        return Unfit.REFUSED, "it wants something at stake for a job that is proved"
    if quote.start_fee > quote.price:
        return Unfit.PRICE, f"it wants {quote.start_fee} for having begun"
    if quote.price > wanted.max_price:
        return Unfit.PRICE, f"over your limit {wanted.max_price}"
    if quote.room < quote.price:
        return Unfit.CREDIT, f"it lends us {quote.room} more"
    expected = expected_ms(candidate, wanted)
    if expected > wanted.deadline_ms or quote.deadline_ms > wanted.deadline_ms:
        return Unfit.DEADLINE, f"would take {expected} ms, {wanted.deadline_ms} ms are left"
    return None


def _reject(candidate: Candidate, wanted: Wanted, why: Unfit, text: str) -> Rejected:
    return Rejected(candidate.worker, why, text, candidate.quote.object.price, expected_ms(candidate, wanted))


_OF_CODE: Final = {
    Code.BUSY: Unfit.BUSY,
    Code.NO_CREDIT: Unfit.CREDIT,
    Code.MEMORY: Unfit.MEMORY,
    Code.PRICE: Unfit.PRICE,
    Code.MODEL_MISSING: Unfit.MODEL,
    Code.MODEL_REFUSED: Unfit.MODEL,
    Code.EXCLUDED: Unfit.EXCLUDED,
    Code.VERSION: Unfit.VERSION,
    Code.DRAINING: Unfit.OFFLINE,
}


def unfit_of(code: Code) -> Unfit:
    """The reason that a refusal stands for."""
    return _OF_CODE.get(code, Unfit.REFUSED)


def summary(rejected: Iterable[Rejected]) -> str:
    """One line for people who wonder why nobody took the job."""
    counted: dict[Unfit, int] = {}
    for one in rejected:
        counted[one.why] = counted.get(one.why, 0) + 1
    return ", ".join(f"{number} {WORDS[why]}" for why, number in counted.items()) or "no peer is up"
