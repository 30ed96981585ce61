"""The admin API on real sockets: what is shown, streamed, changed and recorded, and what a reader that does not read gets."""

import asyncio
import hashlib
import io
import json
import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import pytest

from nexus_edge.api.admin import BODY_BYTES, FILES
from nexus_edge.api.client import AdminClient, ask
from nexus_edge.api.errors import Busy
from nexus_edge.api.models import DeedRequest, DrainRequest, GrantRequest, RunRequest
from nexus_edge.api.routes import AUDIT_HEADER
from nexus_edge.errors import AgentUnavailable, JobFailed, LedgerError, ProofRejected, RejectReason, UsageError
from tests.support.agent import JOB, SmallAgent, a_job, serving, ucr

T = TypeVar("T")

pytestmark = pytest.mark.asyncio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin.sock"


async def raw(path: Path, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of an answer, for requests that the client never sends."""
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(request)
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


# What is shown


async def test_views_arrive_as_they_were_sent(path: Path) -> None:
    async with serving(path) as agent, AdminClient([path]) as client:
        assert (await client.snapshot()).node.short_id == "k3f97qt"
        assert await client.jobs() == await agent.jobs()
        assert await client.job("j-4f2a") == a_job()
        assert await client.peers() == await agent.peers()
        assert await client.proofs() == await agent.proofs()
        assert await client.ledger() == await agent.ledger()
        assert await client.output(JOB) == b"\x93NUMPY of " + JOB.encode()
        assert agent.audits == []


async def test_moments_are_utc_and_the_unknown_is_null(path: Path) -> None:
    async with serving(path):
        _, body = await raw(path, b"GET /v1/jobs/j-4f2a HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
    job = json.loads(body)
    assert job["asked_at"] == "2025-10-03T12:04:11.000Z"
    assert job["verify_ms"] is None
    assert job["price_ucr"] == 31_000


async def test_code_that_is_not_asynchronous_can_ask(path: Path) -> None:
    async with serving(path):
        snapshot = await asyncio.to_thread(ask, [path], lambda client: client.snapshot())
    assert snapshot.today.proved == 41


# What is changed


async def test_a_job_is_run(path: Path) -> None:
    request = RunRequest(model=64 * "a", input=b"\x00\xffnpy", max_price_ucr=ucr(5), deadline_ms=1000, worker="rack-2")
    async with serving(path) as agent, AdminClient([path]) as client:
        job = await client.submit(request)
    assert job.state == "waiting"
    assert agent.requests == [request]


async def test_a_model_is_brought(path: Path) -> None:
    content = os.urandom(3 << 20)
    async with serving(path) as agent, AdminClient([path]) as client:
        model = await client.import_model(io.BytesIO(content), "kws & more")
        assert model.name == "kws & more"
        assert model.digest == hashlib.sha256(content).hexdigest()
        assert [(audit.action, audit.subject) for audit in agent.audits] == [("import", "model kws & more")]
        with pytest.raises(UsageError, match="control characters"):
            await client.import_model(io.BytesIO(content), "\x1b[2J")


async def test_no_more_than_two_models_are_brought_at_once(path: Path) -> None:
    async with serving(path), AdminClient([path]) as client:
        writers = []
        for _ in range(FILES):
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(b"POST /v1/models HTTP/1.1\r\nHost: agent\r\nContent-Length: 100\r\n\r\nhalf of it")
            await writer.drain()
            writers.append(writer)
        await client.jobs()
        with pytest.raises(Busy):
            await client.import_model(io.BytesIO(b"model"), "m")
        for writer in writers:
            writer.close()
            await writer.wait_closed()
        async with asyncio.timeout(5):
            while True:
                try:
                    await client.import_model(io.BytesIO(b"model"), "m")
                    break
                except Busy:
                    await asyncio.sleep(0.01)


async def test_a_job_names_its_model_by_digest(path: Path) -> None:
    """The agent reads no file on anybody's behalf."""
    body = json.dumps({"model": "/etc/passwd", "input": ""}).encode()
    async with serving(path) as agent:
        _, answer = await raw(
            path, b"POST /v1/jobs HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
    assert json.loads(answer)["error"]["kind"] == "usage"
    assert agent.requests == []


async def test_a_change_is_on_record_with_who_asked(path: Path) -> None:
    async with serving(path) as agent, AdminClient([path]) as client:
        done = await client.grant(GrantRequest(peer="rack-2", amount_ucr=ucr(5_000_000)))
        await client.drain(DrainRequest(stop=True))
        await client.cancel("j-4f2a")
        await client.deed(DeedRequest(what="write-off", peer="rack-2"))
        await client.shutdown()
    assert [(audit.action, audit.subject) for audit in agent.audits] == [
        ("grant", "5000000 ucr to rack-2"),
        ("drain", "then stop"),
        ("cancel", "job j-4f2a"),
        ("write-off", "all, rack-2"),
        ("shutdown", ""),
    ]
    assert {(audit.pid, audit.uid, audit.gid) for audit in agent.audits} == {(os.getpid(), os.getuid(), os.getgid())}
    assert done.audit == agent.audits[0].id
    assert len({audit.id for audit in agent.audits}) == 5
    assert agent.asked == ["grant rack-2 5000000", "drain True True", "cancel j-4f2a", "write-off rack-2 None "]
    assert agent.stopped.is_set()


async def test_the_answer_names_the_record(path: Path) -> None:
    async with serving(path) as agent:
        head, _ = await raw(path, b"POST /v1/jobs/j-4f2a/cancel HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    assert f"{AUDIT_HEADER}: {agent.audits[0].id}".encode() in head


async def test_what_is_not_on_record_is_not_done(path: Path) -> None:
    class Full(SmallAgent):
        async def audit(self, _: object) -> None:
            raise LedgerError("the ledger cannot write", "0 B free")

    async with serving(path, Full()) as agent, AdminClient([path]) as client:
        with pytest.raises(LedgerError, match="0 B free"):
            await client.cancel("j-4f2a")
    assert agent.asked == []


# Errors


@pytest.mark.parametrize(
    "error",
    [
        JobFailed("the job failed", "nobody has room", "try later"),
        LedgerError("the ledger contradicts itself", "#9120 does not follow #9119"),
        ProofRejected(RejectReason.EQUATION, "the lookup sum is not zero"),
        UsageError("there is no such job", "j-0"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_the_agent_raises_the_client_raises(path: Path, error: JobFailed) -> None:
    async with serving(path, SmallAgent(refuses=error)), AdminClient([path]) as client:
        with pytest.raises(type(error)) as raised:
            await client.jobs()
    assert (raised.value.what, raised.value.why, raised.value.hint) == (error.what, error.why, error.hint)
    assert getattr(raised.value, "reason", None) == getattr(error, "reason", None)


async def test_a_bug_in_the_agent_says_nothing_of_what_it_held(path: Path) -> None:
    async with serving(path, SmallAgent(refuses=RuntimeError("seed 1234"))):
        head, body = await raw(path, b"GET /v1/jobs HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500")
    assert json.loads(body)["error"]["kind"] == "internal"
    assert b"1234" not in body


@pytest.mark.parametrize(
    ("request_line", "body", "status", "kind"),
    [
        (b"GET /v1/nothing", b"", 404, "usage"),
        (b"DELETE /v1/jobs", b"", 405, "usage"),
        (b"GET /v1/jobs/j-9", b"", 400, "usage"),
        (b"POST /v1/jobs", b"no json", 400, "usage"),
        (b"POST /v1/jobs", b'{"model": "m", "input": "AA==", "colour": "red"}', 400, "usage"),
        (b"POST /v1/grants", b'{"peer": "p", "amount_ucr": 1.5}', 400, "usage"),
        (b"POST /v1/grants", b'{"peer": "p", "amount_ucr": -1}', 400, "usage"),
    ],
)
async def test_requests_that_make_no_sense(path: Path, request_line: bytes, body: bytes, status: int, kind: str) -> None:
    head = b"%s HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (request_line, len(body))
    async with serving(path) as agent:
        answer, said = await raw(path, head + body)
    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert json.loads(said)["error"]["kind"] == kind
    assert (agent.audits, agent.asked, agent.requests) == ([], [], [])


async def test_refusals_do_not_repeat_what_was_sent(path: Path) -> None:
    body = b'{"model": 5, "input": "c2VjcmV0IHBpeGVscw=="}'
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with serving(path):
        _, said = await raw(path, head + body)
    assert b"c2Vj" not in said
    assert b"secret" not in said


async def test_a_body_that_is_too_large_is_not_read(path: Path) -> None:
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: agent\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (BODY_BYTES + 1)
    async with serving(path), AdminClient([path]) as client:
        _, said = await raw(path, head + bytes(1 << 16))
        assert await client.jobs()
    assert json.loads(said)["error"]["kind"] == "input"


async def test_a_large_input_arrives(path: Path) -> None:
    request = RunRequest(model=64 * "a", input=os.urandom(16 << 20))
    async with serving(path) as agent, AdminClient([path]) as client:
        await client.submit(request)
    assert agent.requests[0].input == request.input


async def test_an_agent_that_hangs_says_that_it_is_busy(path: Path) -> None:
    class Hangs(SmallAgent):
        async def jobs(self) -> tuple[()]:
            await asyncio.sleep(60)
            return ()

    async with serving(path, Hangs(), request_s=0.1), AdminClient([path]) as client:
        with pytest.raises(AgentUnavailable, match="too busy"):
            await client.jobs()
        assert (await client.snapshot()).seq == 1


# Streams


async def take(stream: AsyncGenerator[T], count: int) -> list[T]:
    taken = []
    async for item in stream:
        taken.append(item)
        if len(taken) == count:
            break
    await stream.aclose()
    return taken


async def test_snapshots_keep_coming(path: Path) -> None:
    async with serving(path, interval_s=0.02), AdminClient([path]) as client:
        snapshots = await take(client.snapshots(), 5)
    numbers = [snapshot.seq for snapshot in snapshots]
    assert numbers == sorted(set(numbers))


async def test_all_who_watch_share_one_producer_and_nobody_watching_costs_nothing(path: Path) -> None:
    async with serving(path, interval_s=0.05) as agent, AdminClient([path]) as client:
        await asyncio.gather(*(take(client.snapshots(), 4) for _ in range(8)))
        produced = agent.snapshots
        await asyncio.sleep(0.3)
        assert agent.snapshots <= produced + 1
    assert produced < 16


async def test_an_error_of_one_snapshot_reaches_those_who_watch(path: Path) -> None:
    async with serving(path, SmallAgent(refuses=LedgerError("the ledger cannot read")), interval_s=0.05), AdminClient([path]) as client:
        with pytest.raises(LedgerError, match="cannot read"):
            await take(client.snapshots(), 1)


async def test_a_reader_that_does_not_read_is_dropped_and_delays_nobody(path: Path) -> None:
    async with serving(path, SmallAgent(padding="x" * 200_000), interval_s=0.01, slow_reader_s=0.3), AdminClient([path]) as client:
        reader, writer = await asyncio.open_unix_connection(path, limit=1024)
        writer.write(b"GET /v1/snapshots HTTP/1.1\r\nHost: agent\r\n\r\n")
        assert len(await take(client.snapshots(), 60)) == 60
        received = 0
        async with asyncio.timeout(10):
            while part := await _read(reader):
                received += len(part)
        writer.close()
    assert received < 8 << 20


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1 << 20)
    except ConnectionError:
        return b""


async def test_a_job_is_watched_to_its_end(path: Path) -> None:
    steps = [a_job(fraction=0.1), a_job(fraction=0.1), a_job(fraction=0.5), a_job(state="verified", fraction=None, answered=True)]
    async with serving(path, SmallAgent(steps=[steps[0], *steps])), AdminClient([path]) as client:
        seen = [(job.state, job.fraction) async for job in client.watch(JOB)]
    assert seen == [("running", 0.1), ("running", 0.5), ("verified", None)]


async def test_watching_a_job_that_is_not_there(path: Path) -> None:
    async with serving(path), AdminClient([path]) as client:
        with pytest.raises(UsageError, match="no such job"):
            await take(client.watch("j-0"), 1)


async def test_more_watchers_than_are_served(path: Path) -> None:
    async with serving(path, interval_s=0.05):
        writers = [await asyncio.open_unix_connection(path) for _ in range(16)]
        for reader, writer in writers:
            writer.write(b"GET /v1/snapshots HTTP/1.1\r\nHost: agent\r\n\r\n")
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
        async with AdminClient([path]) as client:
            with pytest.raises(AgentUnavailable, match="too many"):
                await take(client.snapshots(), 1)
        for _, writer in writers:
            writer.close()
            await writer.wait_closed()


async def test_streams_end_with_the_server(path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with serving(path, interval_s=0.05):
            client = await stack.enter_async_context(AdminClient([path]))
            stream = client.snapshots()
            await anext(stream)
        with pytest.raises(AgentUnavailable, match="went away"):
            await asyncio.wait_for(_drain(stream), 5)


async def _drain(stream: AsyncGenerator[object]) -> None:
    async for _ in stream:
        pass


# No agent


async def test_no_agent(path: Path) -> None:
    with pytest.raises(AgentUnavailable, match="there is no") as raised:
        async with AdminClient([path]):
            pass
    assert "nexus-edge up" in raised.value.hint


async def test_the_first_socket_that_answers_is_asked(path: Path, tmp_path: Path) -> None:
    async with serving(path), AdminClient([tmp_path / "other.sock", path]) as client:
        assert await client.jobs()


async def test_an_agent_that_goes_away(path: Path) -> None:
    async with AsyncExitStack() as stack:
        async with serving(path):
            client = await stack.enter_async_context(AdminClient([path]))
            await client.jobs()
        with pytest.raises(AgentUnavailable):
            await client.jobs()
