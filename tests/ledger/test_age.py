"""What grows old in a ledger does so by the time that the node was up: no wall clock that is set wrong forgives or forgets anything."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import pytest

from nexus_edge.clock import now_ms
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import CreditPolicy, Ledger, SpendLimit, restore_backup
from nexus_edge.ledger.credit import DAY_MS
from nexus_edge.ledger.looking import verify
from nexus_edge.market.attempts import RULES
from nexus_edge.market.jobs import Phase
from nexus_edge.market.machines import Machines
from nexus_edge.market.workers import Workers
from nexus_edge.types import MicroCredits, NodeId, UnixMs
from tests.support.books import A, B, lease, ref

pytestmark = pytest.mark.asyncio

YEAR_MS = 365 * DAY_MS
FORMER = Path(__file__).parent / "former" / "ledger-1.sqlite.gz"
ALDER, BIRCH = (NodeKey.from_seed(name.ljust(32, b".")) for name in (b"alder", b"birch"))


@dataclass
class Time:
    """A wall clock and a counter that a test turns apart."""

    wall: int = 1_800_000_000_000
    up: int = 5000

    def clock(self) -> UnixMs:
        return UnixMs(self.wall)

    def ticks(self) -> int:
        return self.up


async def opened(folder: Path, time: Time, policy: CreditPolicy | None = None) -> Ledger:
    return await Ledger.open(folder, B, policy, clock=time.clock, ticks=time.ticks)


async def owes(ledger: Ledger, number: int, price: int = 1000) -> None:
    order = lease(price, number)
    await ledger.transact("admit", lambda tx: tx.admit(order, "203.0.113.0/24", private=False))
    await ledger.transact("owe", lambda tx: tx.owe(order.id, ref(number)))


async def test_age_goes_on_where_it_was_whatever_the_clock_says(tmp_path: Path) -> None:
    time = Time()
    ledger = await opened(tmp_path, time)
    born = ledger.age()
    assert born == time.wall
    time.up += 700
    time.wall += YEAR_MS
    assert ledger.age() == born + 700
    await ledger.close()
    time.up = 3  # the machine was started again
    time.wall -= 2 * YEAR_MS
    ledger = await opened(tmp_path, time)
    assert ledger.age() == born + 700
    await ledger.close()


@pytest.mark.parametrize("jump", [30 * DAY_MS, YEAR_MS, -YEAR_MS])
async def test_a_jump_forgives_no_debt_and_forgets_no_work(tmp_path: Path, jump: int) -> None:
    time = Time()
    policy = CreditPolicy(public_bucket=MicroCredits(4000))
    ledger = await opened(tmp_path, time, policy)
    await owes(ledger, 1)
    await ledger.transact("verified", lambda tx: tx.verified(A.id, MicroCredits(1 << 20)))
    await ledger.transact("grant", lambda tx: tx.grant(A.id, MicroCredits(0)))
    before = await ledger.read(lambda reader: reader.book(A.id))
    time.wall += jump
    for _ in range(2):
        assert await ledger.transact("write-off", lambda tx: tx.write_off_overflow()) == {}
        assert await ledger.read(lambda reader: reader.book(A.id)) == before
        await ledger.transact("verified", lambda tx: tx.verified(A.id, MicroCredits(0)))
        await ledger.close()
        ledger = await opened(tmp_path, time, policy)
    time.wall -= jump
    assert await ledger.read(lambda reader: reader.book(A.id)) == before
    time.up += 130 * DAY_MS
    assert (await ledger.read(lambda reader: reader.book(A.id))).verified < before.verified
    assert (await ledger.verify()).faults == ()
    await ledger.close()


async def test_a_clock_that_was_ahead_stops_no_spending_when_it_is_set_right(tmp_path: Path) -> None:
    time = Time()
    ledger = await Ledger.open(tmp_path, A, CreditPolicy(spend_day=MicroCredits(1000)), clock=time.clock, ticks=time.ticks)
    time.wall += YEAR_MS
    order = lease(1000, 1)
    await ledger.transact("offer", lambda tx: tx.reserve(order))
    await ledger.transact("pay", lambda tx: tx.pay(B.id, order.id, "job", MicroCredits(1000), ref(1)))
    with pytest.raises(SpendLimit):
        await ledger.transact("offer", lambda tx: tx.reserve(lease(1, 2)))
    time.wall -= YEAR_MS
    await ledger.transact("offer", lambda tx: tx.reserve(lease(1000, 3)))
    await ledger.close()


async def former(folder: Path) -> Path:
    """Alder's ledger as version 1 wrote it: a job that birch did, and one whose proof was false, still to be done by somebody."""
    folder.mkdir()
    (folder / "ledger.sqlite").write_bytes(gzip.decompress(FORMER.read_bytes()))
    return folder


async def test_a_ledger_of_the_former_version_loses_nothing(tmp_path: Path) -> None:
    ledger = await Ledger.open(await former(tmp_path / "ledger"), ALDER)
    held = await ledger.read(lambda reader: reader.book(BIRCH.id))
    assert (held.owed, held.reserved_out, held.verified) == (-21, 0, 21)
    jobs = Machines(ledger, RULES)
    await jobs.load()
    assert sorted(job.phase for job in jobs) == [Phase.NEW, Phase.SETTLED]
    assert [jobs.over_ms(job.id) is None for job in jobs] == [job.phase is Phase.NEW for job in jobs]
    workers = Workers(ledger)
    await workers.load(lambda: list(jobs))
    assert workers.excludes(NodeId(BIRCH.id))
    again = Workers(ledger)
    await again.load(list)
    assert again.experience == workers.experience != {}
    assert (await ledger.verify()).faults == ()
    await ledger.close()
    await (await Ledger.open(tmp_path / "ledger", ALDER)).close()


async def test_a_backup_of_the_former_version_is_restored(tmp_path: Path) -> None:
    backup = await former(tmp_path / "backup") / "ledger.sqlite"
    (tmp_path / "ledger").mkdir()
    restore_backup(backup, tmp_path / "ledger" / "ledger.sqlite", ALDER.id, now_ms())
    ledger = await Ledger.open(tmp_path / "ledger", ALDER)
    assert await ledger.read(lambda reader: reader.unsynchronised()) == [BIRCH.id]
    await ledger.close()
    assert verify(tmp_path / "ledger", ALDER.id).faults == ()
