"""When jobs will be done: what is forecast, corrected by what is seen, and nothing where nobody knows."""

import time
from pathlib import Path
from typing import Any

import pytest

from nexus_edge.market.jobs import Phase
from nexus_edge.market.leases import State
from nexus_edge.market.ordering import Live, Order
from nexus_edge.market.outlook import left_ms, outlook
from nexus_edge.market.quoting import Forecast
from nexus_edge.market.work import READING, Work
from nexus_edge.types import Bytes, Digest, MicroCredits
from nexus_edge.wire.messages import LeaseStatus
from tests.support.trade import DATA, DIGEST, Trader, traders

NOW = 1000.0
PHASES = (("execute", 1_000_000), ("commit", 3_000_000), ("opening", 4_000_000), ("verify", 0))
SEEN = Forecast(900, 7000, 900, 7000, Bytes(1), len(DATA), PHASES)
"""Of a model that was proved here: its phases take eight seconds together."""
NEW = Forecast(2000, 6000, 2000, 6000, Bytes(1), len(DATA))


def lease(number: int) -> Digest:
    return Digest(bytes([number]) * 32)


def under_way(phase: str, ppm: int, elapsed_s: float, forecast: Forecast | None = SEEN) -> Work:
    return Work(0.0, "", forecast=forecast, run_began=NOW - elapsed_s, phase=phase, done_ppm=ppm, cancel=lambda: None)


def waiting(accepted: float, forecast: Forecast | None = SEEN) -> Work:
    return Work(accepted, "", forecast=forecast)


def test_a_run_that_goes_as_forecast_takes_the_rest_of_the_forecast() -> None:
    assert left_ms(under_way("execute", 0, 0.0), NOW) == 8000
    assert left_ms(under_way("commit", 1_000_000, 4.0), NOW) == 4000
    assert left_ms(under_way("opening", 500_000, 6.0), NOW) == 2000
    assert left_ms(under_way("verify", 0, 8.0), NOW) == 0


def test_a_run_that_is_twice_as_slow_is_believed_more_the_longer_it_has_run() -> None:
    half, late = left_ms(under_way("opening", 0, 8.0), NOW), left_ms(under_way("opening", 750_000, 14.0), NOW)
    assert half == 6000  # between the 4 s of the forecast and the 8 s at this pace
    assert late == 1875  # of 1 s and 2 s


def test_a_phase_counts_by_the_time_it_takes() -> None:
    """Half of a phase of three seconds, after one second: not a half of everything."""
    assert left_ms(under_way("commit", 500_000, 2.5), NOW) == 5500


def test_before_the_first_proof_the_forecast_runs_down_and_then_nothing_is_known() -> None:
    assert left_ms(under_way("commit", 900_000, 1.0, NEW), NOW) == 7000
    assert left_ms(under_way("commit", 900_000, 8.0, NEW), NOW) is None


@pytest.mark.parametrize(
    "work", [under_way("commit", 1, 1.0, None), Work(0.0, "", forecast=SEEN, phase=READING, cancel=lambda: None), waiting(0.0)]
)
def test_nothing_is_said_without_a_forecast_or_before_the_run_began(work: Work) -> None:
    assert left_ms(work, NOW) is None


def test_a_phase_that_no_run_had_says_nothing_of_the_rest() -> None:
    assert left_ms(under_way("folding", 0, 3.0), NOW) == 5000
    assert left_ms(under_way("folding", 0, 9.0), NOW) is None


def test_reading_a_model_is_not_held_against_the_run() -> None:
    work = Work(0.0, "", forecast=SEEN)
    work.progress(READING, 0)
    assert left_ms(work, time.monotonic()) is None
    work.progress("execute", 0)
    began = work.run_began
    assert 8000 <= (left_ms(work, time.monotonic()) or 0) < 10_000
    work.progress("commit", 10)
    assert (work.run_began, work.phase, work.done_ppm, work.beat) == (began, "commit", 10, 3)
    assert [(step.kind, step.detail) for step in work.steps] == [("executing", "load"), ("executing", "execute"), ("proving", "commit")]


def test_those_that_wait_come_one_after_the_other() -> None:
    one = under_way("opening", 500_000, 6.0)
    found = outlook(1, [(lease(3), waiting(30.0)), (lease(1), one), (lease(2), waiting(20.0))], NOW)
    assert found.left_ms == {lease(1): 2000, lease(2): 10_000, lease(3): 18_000}
    assert found.free_ms == 18_000


def test_two_slots_take_turns() -> None:
    one = under_way("opening", 500_000, 6.0)
    found = outlook(2, [(lease(1), one), (lease(2), waiting(20.0)), (lease(3), waiting(30.0))], NOW)
    assert found.left_ms == {lease(1): 2000, lease(2): 8000, lease(3): 10_000}
    assert found.free_ms == 8000


def test_a_slot_that_is_idle_is_free_at_once() -> None:
    assert outlook(1, [], NOW).free_ms == 0
    assert outlook(2, [(lease(1), under_way("commit", 0, 1.0))], NOW).free_ms == 0


def test_what_waits_for_something_unknown_is_unknown() -> None:
    over = under_way("commit", 0, 9.0, NEW)
    found = outlook(1, [(lease(1), over), (lease(2), waiting(20.0))], NOW)
    assert (found.left_ms, found.free_ms) == ({}, None)
    assert outlook(2, [(lease(1), over), (lease(2), waiting(20.0))], NOW).left_ms == {lease(2): 8000}


def status(eta_ms: int | None) -> LeaseStatus:
    return LeaseStatus("proving", "commit", 0, eta_ms, 1, "", 0, (), None)  # type: ignore[arg-type]


def test_what_the_worker_forecast_runs_down_between_its_answers() -> None:
    live = Live(status=status(5000), heard=NOW)
    assert (live.left_ms(NOW), live.left_ms(NOW + 2), live.left_ms(NOW + 5)) == (5000, 3000, None)
    live.suspect = True
    assert live.left_ms(NOW) is None
    assert Live(status=status(None), heard=NOW).left_ms(NOW) is None
    assert Live().left_ms(NOW) is None


@pytest.mark.asyncio
async def test_a_requester_is_told_when_its_jobs_will_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over real connections: one that runs, one that waits for it, and both again after the worker was down."""
    async with traders(tmp_path, "alder", "birch") as (alder, birch):
        monkeypatch.setattr(birch.local, "forecast", lambda *_: SEEN)
        birch.local.gate.clear()
        jobs = [await alder.requester.submit(order()) for _ in range(2)]
        await until_running(alder, birch)
        first, second = sorted([left(alder, job.id) for job in jobs])
        assert 7000 < first < 12_000
        assert second > first + 7000, "its own eight seconds come after those of the first"
        found = birch.worker.outlook()
        assert len(found.left_ms) == 2
        assert found.free_ms == max(found.left_ms.values())
        port = birch.server.port
        await birch.stop()
        live = alder.requester.live[jobs[0].id]
        assert await alder.requester.jobs.changed(lambda: "cannot be reached" in live.unanswered, 20)
        await birch.start(port)
        assert await alder.requester.jobs.changed(lambda: not live.unanswered, 20)
        assert await birch.worker.leases.changed(lambda: len(birch.worker.outlook().left_ms) == 2, 20)
        birch.local.gate.set()
        for job in jobs:
            assert (await alder.requester.wait(job.id, 30)).phase is Phase.SETTLED
        assert birch.worker.outlook().free_ms == 0
        lease_of = alder.requester.jobs[jobs[0].id].attempt.lease
        connection = alder.connection(birch.key.id)
        assert connection is not None
        assert (await connection.poll(lease_of, 0, 0)).eta_ms is None, "it is done"


def order() -> Order:
    return Order(DIGEST, "tflm", "zk-100", DATA, MicroCredits(100_000), 60_000)


def left(trader: Trader, job: Any) -> int:
    found = trader.requester.live[job].left_ms(time.monotonic())
    assert found is not None
    return found


async def until_running(alder: Trader, birch: Trader) -> None:
    """One runs, the other waits, and their requester has heard of it."""

    def both_known() -> bool:
        live = [alder.requester.live.get(job.id) for job in alder.requester.jobs]
        return all(one is not None and one.status is not None and one.status.eta_ms is not None for one in live)

    assert await birch.worker.leases.changed(lambda: [one.state for one in birch.worker.leases] == [State.QUEUED] * 2, 20)
    assert await alder.requester.jobs.changed(both_known, 20)
