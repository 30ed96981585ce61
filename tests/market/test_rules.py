"""Prices, admission, experience and placement, on numbers worked by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.identity import NodeKey
from nexus_edge.market.admission import RESERVE, Demand, backlog_ms, check_memory, check_queue, memory_needed
from nexus_edge.market.experience import HALF_LIFE_MS, PPM, Experience, decayed
from nexus_edge.market.placement import WORDS, Candidate, Rejected, Unfit, Wanted, choose, cost, expected_ms, summary, tie, unfit_of
from nexus_edge.market.pricing import core_ms, multiplier, price
from nexus_edge.types import Bytes, Digest, JobId, MicroCredits, NodeId, UnixMs
from nexus_edge.wire.objects import Mode, Quote
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import sign

GIB = 2**30
MIB = 2**20
JOB = JobId(b"job-of-16-bytes.")
ME = NodeKey.from_seed(b"m" * 32)


@pytest.mark.parametrize(
    ("backlog", "slots", "permille"),
    [
        (0, 1, 1000),
        (-5, 1, 1000),
        (6_000, 1, 1030),  # a tenth: 1000 + 3 * 100 * 100 / 1000
        (30_000, 1, 1750),
        (60_000, 1, 4000),
        (600_000, 1, 4000),
        (60_000, 2, 1750),
        (60_000, 0, 4000),
    ],
)
def test_prices_rise_with_the_square_of_the_backlog(backlog: int, slots: int, permille: int) -> None:
    assert multiplier(backlog, slots) == permille


@pytest.mark.parametrize(
    ("work", "rate", "backlog", "expected"),
    [
        (2100, 1000, 0, 2100),  # a credit is a million core-milliseconds
        (2100, 1000, 60_000, 8400),
        (0, 1000, 0, 1),
        (1, 1, 0, 1),
        (3, 500, 0, 2),  # rounded up
        (2**50, 1000, 0, 2**40),
    ],
)
def test_prices(work: int, rate: int, backlog: int, expected: int) -> None:
    assert price(work, rate, backlog_ms=backlog) == expected


@pytest.mark.parametrize(("mode", "expected"), [(Mode.PROVED, 1100), (Mode.DEFERRED, 1100), (Mode.SAMPLED, 150)])
def test_what_work_a_mode_is(mode: Mode, expected: int) -> None:
    assert core_ms(mode, 100, 1000, p_ppm=50_000) == expected


def test_memory_is_the_forecast_and_a_quarter_and_a_reserve() -> None:
    jobs = [Demand(Bytes(GIB), 10), Demand(Bytes(GIB), 10)]
    assert memory_needed(jobs) == 2.5 * GIB + RESERVE
    assert memory_needed(jobs, learned_permille=2000) == 5 * GIB + RESERVE
    assert memory_needed(jobs, learned_permille=500) == memory_needed(jobs)
    check_memory(jobs, Bytes(3 * GIB))
    with pytest.raises(Refusal, match="needs 3072 MiB with what is running, has 3071 MiB") as refused:
        check_memory(jobs, Bytes(3 * GIB - 1))
    assert refused.value.code is Code.MEMORY


def test_a_queue_is_bounded_in_jobs_and_in_time() -> None:
    check_queue([Demand(Bytes(0), 10)] * 63)
    with pytest.raises(Refusal) as refused:
        check_queue([Demand(Bytes(0), 10)] * 64)
    assert (refused.value.code, refused.value.retry_ms) == (Code.BUSY, 1000)
    check_queue([Demand(Bytes(0), 299_999)])
    with pytest.raises(Refusal) as refused:
        check_queue([Demand(Bytes(0), 300_000)])
    assert refused.value.retry_ms == 150_000
    check_queue([Demand(Bytes(0), 300_000)], slots=2)
    assert backlog_ms([Demand(Bytes(0), 5), Demand(Bytes(0), 6)], 2) == 5


def test_who_has_shown_nothing_is_taken_to_fail_three_times_in_ten() -> None:
    assert Experience().p_fail == 300_000
    assert not Experience().is_proven
    once = Experience().succeeded(UnixMs(0), 100, 150)
    assert once.p_fail == 240_000  # 1.2 of 5
    assert once.is_proven
    assert once.slowness_permille == 1500
    assert Experience().failed(UnixMs(0)).p_fail == 440_000  # 2.2 of 5
    assert not once.failed(UnixMs(0)).is_proven
    assert once.seen(UnixMs(HALF_LIFE_MS)).successes == PPM // 2
    assert once.seen(UnixMs(HALF_LIFE_MS)).is_proven
    assert once.seen(UnixMs(HALF_LIFE_MS)).p_fail == 266_666  # 1.2 of 4.5


@given(st.integers(0, 2**40), st.integers(0, 2**45), st.integers(0, 2**45))
def test_what_is_forgotten_stays_forgotten(value: int, age: int, more: int) -> None:
    assert 0 <= decayed(value, age + more) <= decayed(value, age) <= value


def test_a_clock_that_goes_back_changes_nothing() -> None:
    once = Experience().succeeded(UnixMs(10**12), 1, 1)
    assert once.seen(UnixMs(0)) == once


WANTED = Wanted(JOB, MicroCredits(10_000), 60_000, 1_000_000)


def candidate(
    name: bytes,
    *,
    experience: Experience | None = None,
    owed: int = 0,
    near: bool = False,
    terms: dict[str, int] | None = None,
    **more: int,
) -> Candidate:
    key = NodeKey.from_seed(name.ljust(32, b"."))
    values = {
        "price": 2000, "start_fee": 500, "queue_ms": 0, "run_ms": 100, "prove_ms": 900, "deadline_ms": 10_000, "room": 10_000, "stake": 0, **(terms or {}), **more
    }  # fmt: skip
    quote = Quote(
        iss=key.id, at=UnixMs(0), to=ME.id, rid=bytes(16), model=Digest(bytes(32)), sem="tflm", params="zk-100", mode=1, in_max=0, p_ppm=0,
        audit_ms=0, ttl_ms=10_000, missing=(), **values,  # type: ignore[arg-type]
    )  # fmt: skip
    return Candidate(
        key.id, sign(key, quote), experience or Experience().succeeded(UnixMs(0), 1, 1), 20, 10_000_000, MicroCredits(owed), near
    )


def test_expected_time_and_cost() -> None:
    plain = candidate(b"a")
    assert expected_ms(plain, WANTED) == 20 + 100 + 0 + 1000  # round trip, a megabyte at ten a second, queue, work
    # price + 2000 * 1.12 s + 24 % of (500 + 2000 * 60 s)
    assert cost(plain, WANTED) == 2000 + 2240 + 240_000 * 120_500 // PPM
    assert cost(candidate(b"a", owed=8000), WANTED) == cost(plain, WANTED) - 250
    assert cost(candidate(b"a", owed=800), WANTED) == cost(plain, WANTED) - 100
    assert cost(candidate(b"a", owed=-8000), WANTED) == cost(plain, WANTED)
    slow = candidate(b"a", experience=Experience().succeeded(UnixMs(0), 100, 300))
    assert expected_ms(slow, WANTED) == 20 + 100 + 3000


def test_the_cheapest_proven_worker_gets_the_job() -> None:
    dear, cheap, slow = candidate(b"dear", price=5000), candidate(b"cheap"), candidate(b"slow", queue_ms=5000)
    best, rejected = choose([dear, cheap, slow], WANTED)
    assert best is cheap
    assert {one.worker: one.why for one in rejected} == {dear.worker: Unfit.PRICE, slow.worker: Unfit.PRICE}
    assert all(f"chosen {cost(cheap, WANTED)}" in one.text for one in rejected)


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ({"price": 10_001, "room": 20_000}, Unfit.PRICE),
        ({"start_fee": 2001}, Unfit.PRICE),
        ({"stake": 1}, Unfit.REFUSED),
        ({"room": 1999}, Unfit.CREDIT),
        ({"queue_ms": 60_000}, Unfit.DEADLINE),
        ({"deadline_ms": 60_001}, Unfit.DEADLINE),
    ],
)
def test_hard_filters(terms: dict[str, int], why: Unfit) -> None:
    best, rejected = choose([candidate(b"a", terms=terms)], WANTED)
    assert best is None
    assert [one.why for one in rejected] == [why]
    assert summary(rejected) == f"1 {WORDS[why]}"


def test_every_reason_has_words() -> None:
    assert set(WORDS) == set(Unfit)
    rejected = [Rejected(NodeId(bytes([n])), why, "") for n, why in enumerate((Unfit.PRICE, Unfit.BUSY, Unfit.PRICE))]
    assert summary(rejected) == "2 asking more than the job may cost, 1 busy"
    assert summary([]) == "no peer is up"


def test_unproven_workers_wait_while_there_is_a_proven_one() -> None:
    proven, unknown = candidate(b"proven", price=9000), candidate(b"unknown", price=1, start_fee=0, experience=Experience())
    best, rejected = choose([unknown, proven], WANTED)
    assert best is proven
    assert rejected[0].why is Unfit.UNPROVEN


def test_whom_the_owner_trusts_need_not_prove_itself_until_it_fails() -> None:
    member, unknown = (
        candidate(b"member", price=9000, experience=Experience()),
        candidate(b"unknown", price=1, start_fee=0, experience=Experience()),
    )
    member = replace(member, trusted=True)
    assert choose([unknown, member], WANTED)[0] is member
    once = Experience().failed(UnixMs(0))
    assert not replace(member, experience=once).is_proven
    assert replace(member, experience=once.succeeded(UnixMs(0), 1, 1)).is_proven
    # Among proven ones it has no other advantage.
    cheap = candidate(b"cheap")
    assert choose([member, cheap], WANTED)[0] is cheap


def test_without_a_proven_worker_neither_price_nor_claims_count() -> None:
    names = [bytes([letter]) for letter in range(65, 85)]
    fair = [candidate(name, experience=Experience()) for name in names]
    lures = [candidate(name, experience=Experience(), price=1, start_fee=0, prove_ms=0) for name in names]
    first, second = choose(fair, WANTED)[0], choose(lures, WANTED)[0]
    assert first is not None
    assert second is not None
    assert first.worker == second.worker == min((one.worker for one in fair), key=lambda worker: tie(JOB, worker))
    near = candidate(b"near", experience=Experience(), near=True)
    assert choose([*fair, near], WANTED)[0] is near


def test_every_code_has_a_reason() -> None:
    assert all(unfit_of(code) in Unfit for code in Code)
