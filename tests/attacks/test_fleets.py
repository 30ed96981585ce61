"""Certificates that nobody should take: each is refused in the stated way, costs no row, and changes nobody's credit."""

import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from nexus_edge.identity import NodeKey
from nexus_edge.ledger import CreditPolicy, Group
from nexus_edge.ledger.ledger import FILE
from nexus_edge.market.fleet import Fleet
from nexus_edge.transport import PeerConnection
from nexus_edge.types import NodeId
from nexus_edge.wire.cbor import encode
from nexus_edge.wire.digests import object_id
from nexus_edge.wire.fields import write_fields
from nexus_edge.wire.messages import GroupPost, encode_message
from nexus_edge.wire.objects import GroupCertificate
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed
from tests.support.fleets import DAY_MS, OWNER, RIVAL, certificate, serving
from tests.support.trade import Trader, traders

pytestmark = pytest.mark.asyncio

HOUR_MS = 3_600_000


def birch_for(asker: Trader, birch: Trader) -> PeerConnection:
    return asker.client.at(birch.key.id, "127.0.0.1", birch.server.port)


async def refusal(asker: Trader, birch: Trader, shown: Signed[GroupCertificate]) -> Code | None:
    try:
        await birch_for(asker, birch).join(shown)
    except Refusal as refused:
        return refused.code
    return None


async def is_member(asker: Trader, birch: Trader) -> bool:
    return asker.key.id in await birch.ledger.read(lambda reader: reader.members())


def rows(birch: Trader) -> int:
    with closing(sqlite3.connect(birch.folder / FILE)) as connection:
        return int(connection.execute("SELECT count(*) FROM certificates").fetchone()[0])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"node": NodeKey.from_seed(b"x" * 32).id}, Code.NOT_YOURS),
        ({"owner": RIVAL}, Code.NOT_FOUND),
        ({"days": 1, "ago_ms": DAY_MS}, Code.CONFLICT),
        ({"days": 31}, Code.BAD_OBJECT),
        ({"days": 0}, Code.BAD_OBJECT),
        ({"days": -1}, Code.BAD_OBJECT),
        ({"ago_ms": -HOUR_MS - 60_000}, Code.CONFLICT),
        ({"seq": 2**53 - 1}, Code.BAD_OBJECT),
    ],
    ids=["another node", "another key", "ended", "31 days", "no time", "backwards", "from the future", "a number nobody can top"],
)
async def test_a_certificate_that_does_not_hold(tmp_path: Path, changes: dict[str, Any], code: Code) -> None:
    async with traders(tmp_path, "alder", "birch", policy=serving()) as (alder, birch):
        assert await refusal(alder, birch, certificate(**{"node": alder.key.id, **changes})) is code
        assert not await is_member(alder, birch)
        assert rows(birch) == 0
        assert await refusal(alder, birch, certificate(alder.key.id)) is None
        assert await is_member(alder, birch)


async def test_a_stolen_certificate_is_of_no_use_to_a_thief(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch", "thief", policy=serving()) as (alder, birch, thief):
        assert await refusal(thief, birch, certificate(alder.key.id)) is Code.NOT_YOURS
        assert not await is_member(alder, birch)
        assert not await is_member(thief, birch)


async def test_a_forged_signature(tmp_path: Path) -> None:
    async with traders(tmp_path, "alder", "birch", policy=serving()) as (alder, birch):
        good = certificate(alder.key.id)
        forged = Signed(good.object, good.body, RIVAL.sign(good.body), good.id)
        assert await refusal(alder, birch, forged) is Code.BAD_OBJECT
        assert rows(birch) == 0


async def test_an_older_certificate_after_a_newer_one(tmp_path: Path) -> None:
    """The newer one lasts a second less than the older: replaying that gains nothing, also after a restart."""
    async with traders(tmp_path, "alder", "birch", policy=serving()) as (alder, birch):
        older, newer = certificate(alder.key.id, ago_ms=HOUR_MS), certificate(alder.key.id, days=1)
        assert await refusal(alder, birch, older) is None
        assert await refusal(alder, birch, newer) is None
        assert await refusal(alder, birch, older) is Code.CONFLICT
        assert await refusal(alder, birch, newer) is None, "the same again is a retry"
        port = birch.server.port
        await birch.stop()
        await birch.start(port)
        assert await refusal(alder, birch, older) is Code.CONFLICT
        member = (await birch.ledger.read(lambda reader: reader.members()))[alder.key.id]
        assert member.until == newer.object.exp


async def test_a_key_of_small_order_signs_for_nobody(tmp_path: Path) -> None:
    """One signature would be valid for every node: whoever configured such a key by mistake is not robbed."""
    small = NodeId(bytes([1]).ljust(32, b"\0"))
    async with traders(tmp_path, "alder", "birch", policy=CreditPolicy(groups=(Group(small),))) as (alder, birch):
        good = certificate(alder.key.id).object
        fields = {key: value for key, value in write_fields(good).items() if key != "iss"}
        body = encode({"v": 1, "t": "group", "iss": bytes(small), **fields})
        forged = Signed(good, body, small + bytes(32), object_id("group", body))
        assert await refusal(alder, birch, forged) is Code.BAD_OBJECT
        assert rows(birch) == 0


@pytest.mark.parametrize("content", [b"", b"\xa0", bytes(300), b"\xff" * 300])
async def test_bytes_that_are_no_certificate(tmp_path: Path, content: bytes) -> None:
    async with traders(tmp_path, "alder", "birch", policy=serving()) as (alder, birch):
        connection = birch_for(alder, birch)
        with pytest.raises(Refusal) as refused:
            await connection.ask("join", GroupPost(content))
        assert refused.value.code is Code.BAD_OBJECT
        assert len(encode_message(GroupPost(content))) < 400
        assert rows(birch) == 0


async def test_thousands_of_certificates(tmp_path: Path) -> None:
    """Of keys that are not ours: no row and no commit. Of ours, each newer than the last: one row."""
    async with traders(tmp_path, "alder", "birch", policy=serving()) as (alder, birch):
        commits: list[str] = []
        transact = birch.ledger.transact

        async def counted(name: str, work: Any) -> Any:
            commits.append(name)
            return await transact(name, work)

        birch.ledger.transact = counted  # type: ignore[method-assign]
        codes = set()
        for number in range(2000):
            owner = NodeKey.from_seed(number.to_bytes(32, "big"))
            with contextlib.suppress(Refusal):
                await birch.fleet.join(alder.key.id, certificate(alder.key.id, owner=owner))
                codes.add(number)
        assert (codes, commits, rows(birch)) == (set(), [], 0)
        for number in range(1000):
            await birch.fleet.join(alder.key.id, certificate(alder.key.id, ago_ms=20_000_000 - 10_000 * number))
        assert rows(birch) == 1


async def test_a_worker_that_shows_what_is_not_its_own(tmp_path: Path) -> None:
    """It is trusted by nobody for it, and what it shows costs nothing."""
    async with traders(tmp_path, "alder", "birch", policy=serving()) as (alder, birch):
        others: tuple[Signed[GroupCertificate], ...]
        others = (certificate(NodeKey.from_seed(b"x" * 32).id), certificate(birch.key.id, owner=RIVAL), certificate(birch.key.id, days=31))
        birch.fleet.membership.holding = lambda: others  # type: ignore[method-assign]
        await alder.fleet.round()
        assert await alder.ledger.read(lambda reader: reader.trusted()) == set()
        assert rows(alder) == 0
        # Nor does it keep what is good from being read.
        others = (*others, certificate(birch.key.id))
        alder.fleet = Fleet(alder.ledger, alder.fleet.membership, alder)
        await alder.fleet.round()
        assert await alder.ledger.read(lambda reader: reader.trusted()) == {birch.key.id}


async def test_a_certificate_is_no_other_object_and_no_other_object_a_certificate(tmp_path: Path) -> None:
    """What an owner's key signs under another type is not taken for a certificate."""
    async with traders(tmp_path, "alder", "birch", policy=serving()) as (alder, birch):
        good = certificate(alder.key.id)
        assert good.body.count(b"group") == 1
        signature = OWNER.sign(b"nexus-edge/1/vouch\0" + good.body)
        assert await refusal(alder, birch, Signed(good.object, good.body, signature, good.id)) is Code.BAD_OBJECT
