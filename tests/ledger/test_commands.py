"""`nexus-edge ledger` and `nexus-edge credit` on real ledgers."""

import asyncio
import csv
import io
import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nexus_edge.commands.credit import credit_expect, credit_grant, credit_list, credit_prepay, credit_refund, credit_write_off
from nexus_edge.commands.ledger import (
    ledger_backup,
    ledger_export,
    ledger_list,
    ledger_restore,
    ledger_verify,
    show_credits,
)
from nexus_edge.errors import FileError, LedgerError, UsageError
from nexus_edge.identity import format_node_id, save_node_key, short_id
from nexus_edge.ledger import InUse, Ledger
from nexus_edge.wire.objects import Ack, Entry
from nexus_edge.wire.signing import read_signed
from tests.support.books import A, B, trade
from tests.support.fleets import OWNER, certificate, serving


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A's state folder after two jobs of B."""
    for variable in ("STATE_DIRECTORY", "CREDENTIALS_DIRECTORY", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    async def prepare() -> None:
        for ledger in await trade(tmp_path, 2):
            await ledger.close()

    asyncio.run(prepare())
    state = tmp_path / "state"
    state.mkdir()
    (tmp_path / "a").rename(state / "ledger")
    save_node_key(A, state / "node-key")
    return state


def arguments(state: Path, set_: Sequence[tuple[str, str]] = (), **more: Any) -> Namespace:
    return Namespace(flags={"node.state": ("--state", str(state))}, set=set_, config=None, **more)


def test_members_of_a_fleet_are_shown_with_their_line(state: Path) -> None:
    async def prepare() -> None:
        ledger = await Ledger.open(state / "ledger", A, serving())
        signed = certificate(B.id)
        await ledger.transact("group:joined", lambda tx: tx.join(signed))
        await ledger.close()

    asyncio.run(prepare())
    owner = format_node_id(OWNER.id)
    for group, line in ((f"home={owner}", "no bound"), (f"home={owner}:7 cr", "7.000000")):
        result = credit_list(arguments(state, set_=[("fleet.groups", group)]))
        (book,) = result.data["books"]
        assert book["fleet"] == "home"
        assert line in result.lines[1]
        assert "fleet home until 20" in result.lines[1]
    (book,) = credit_list(arguments(state)).data["books"]
    assert (book["fleet"], book["fleet_until"], book["line_ucr"]) == (None, None, 0)


def test_list(state: Path) -> None:
    result = ledger_list(arguments(state, lines=None, peer=None))
    assert [one["kind"] for one in result.data["movements"]] == ["paid", "held", "paid", "held"]
    assert [one["balance_ucr"] for one in result.data["movements"]] == [-2000, None, -1000, None]
    assert {one["signatures"] for one in result.data["movements"] if one["kind"] == "paid"} == {"both"}
    assert "-0.001000" in result.lines[0]
    assert result.lines[-1] == "net -0.002000 cr with 1 peers"
    assert len(ledger_list(arguments(state, lines=1, peer=short_id(B.id))).data["movements"]) == 1


def test_verify(state: Path) -> None:
    result = ledger_verify(arguments(state))
    assert result.data["sound"] is True
    assert result.error is None
    file = state / "ledger" / "ledger.sqlite"
    file.write_bytes(file.read_bytes()[:8192])
    broken = ledger_verify(arguments(state))
    assert broken.error is not None
    assert broken.data["faults"] != []


@pytest.mark.parametrize("to_file", [True, False])
def test_export(state: Path, tmp_path: Path, to_file: bool) -> None:
    def exported(kind: str) -> str:
        out = tmp_path / f"export.{kind}" if to_file else None
        result = ledger_export(arguments(state, format=kind, out=out))
        return "\n".join(result.lines) if out is None else out.read_text()

    rows = list(csv.DictReader(io.StringIO(exported("csv"))))
    lines = [json.loads(line) for line in exported("jsonl").splitlines()]
    assert [row["kind"] for row in rows] == [line["kind"] for line in lines] == ["held", "paid", "held", "paid"]
    assert [row["amount_ucr"] for row in rows] == ["-1000"] * 4
    for line in (one for one in lines if one["entry"]):
        entry, ack = read_signed(bytes.fromhex(line["signed"]), Entry), read_signed(bytes.fromhex(line["ack"]), Ack)
        assert (entry.issuer, ack.issuer, ack.object.entry) == (A.id, B.id, entry.id)


def test_an_export_never_replaces_a_file(state: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(FileError, match="exists already"):
        ledger_export(arguments(state, format="csv", out=tmp_path / "mine"))
    assert (tmp_path / "mine").read_text() == "mine"


def test_backup_and_restore(state: Path, tmp_path: Path) -> None:
    assert ledger_backup(arguments(state, file=tmp_path / "copy")).data["bytes"] > 0
    (state / "ledger" / "ledger.sqlite").unlink()
    result = ledger_restore(arguments(state, file=tmp_path / "copy"))
    assert (result.data["sound"], result.data["peers_to_compare"], result.data["former"]) == (True, 1, None)
    assert credit_list(arguments(state)).lines[1].endswith("to be compared")


def test_nothing_is_restored_under_a_running_agent(state: Path, tmp_path: Path) -> None:
    ledger_backup(arguments(state, file=tmp_path / "copy"))

    async def attempt() -> None:
        ledger = await Ledger.open(state / "ledger", A)
        try:
            with pytest.raises(InUse):
                await asyncio.to_thread(ledger_restore, arguments(state, file=tmp_path / "copy"))
            assert (await asyncio.to_thread(ledger_verify, arguments(state))).error is None
        finally:
            await ledger.close()

    asyncio.run(attempt())


def test_grant(state: Path) -> None:
    for written, granted in (("5", 5_000_000), ("0.5 cr", 500_000), ("300 ucr", 300), ("0", 0)):
        result = credit_grant(arguments(state, peer=short_id(B.id), amount=written))
        assert result.data == {"peer": format_node_id(B.id), "granted_ucr": granted, "through": "the ledger"}
        assert credit_list(arguments(state)).data["books"][0]["granted_ucr"] == granted
    for wrong in ("-1", "0.0000001", "much", "1e9", "99999999"):
        with pytest.raises(UsageError):
            credit_grant(arguments(state, peer=short_id(B.id), amount=wrong))


@pytest.mark.parametrize(("amount", "shown"), [(0, "0.000000"), (1, "0.000001"), (-1_500_000, "-1.500000")])
def test_credits_are_shown_exactly(amount: int, shown: str) -> None:
    assert show_credits(amount) == shown


def test_what_owners_settle_between_themselves(state: Path) -> None:
    peer = short_id(B.id)
    expected = credit_expect(arguments(state, peer=peer, amount="5", invoice="Invoice 17"))
    assert expected.data == {
        "what": "expect", "peer": format_node_id(B.id), "amount_ucr": 5_000_000, "entry": None, "again": False, "through": "the ledger"
    }  # fmt: skip
    prepaid = credit_prepay(arguments(state, peer=peer, amount="0.002", invoice="Invoice 18"))
    assert prepaid.lines == [f"we owe {peer} 0.002000 cr more"]
    assert len(prepaid.data["entry"]) == 64
    once_more = credit_prepay(arguments(state, peer=peer, amount="0.002", invoice="Invoice 18"))
    assert once_more.lines == [f"we owe {peer} 0.002000 cr more: that is on record already, and nothing has changed"]
    assert once_more.data == {**prepaid.data, "again": True}
    assert [one["kind"] for one in ledger_list(arguments(state, lines=1, peer=None)).data["movements"]] == ["prepaid"]
    assert credit_list(arguments(state)).data["books"][0]["owed_ucr"] == -4000
    with pytest.raises(LedgerError, match="nothing to refund"):
        credit_refund(arguments(state, peer=peer, job="j-0000", amount=None))
    with pytest.raises(LedgerError, match="less to write off"):
        credit_write_off(arguments(state, peer=peer, amount=None))
    with pytest.raises(UsageError, match="changes nothing"):
        credit_write_off(arguments(state, peer=peer, amount="0"))
