"""Children that do what they should, and children that die in every way there is. All of them are real processes."""

import asyncio
import contextlib
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nexus_edge.compute.errors import ChildFailed, Failure
from nexus_edge.compute.machine import Device
from nexus_edge.compute.pool import Pool
from nexus_edge.compute.process import Child, Task
from nexus_edge.errors import NexusEdgeError
from nexus_edge.types import Bytes

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MIB = 1 << 20


def task(function: str, *, deadline_s: float = 30, forecast: int | None = None, limit: int | None = None, **arguments: object) -> Task:
    sizes = [None if size is None else Bytes(size) for size in (forecast, limit)]
    return Task(f"child_tasks:{function}", arguments, deadline_s, *sizes)  # type: ignore[arg-type]


def made(name: str = "test") -> Child:
    return Child(name, threads=1, environment={"PYTHONPATH": f"{ROOT}:{HERE}"})


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Child]:
    child = made()
    try:
        yield child
    finally:
        await child.stop()


async def failure(child: Child, what: Task) -> ChildFailed:
    with pytest.raises(ChildFailed) as caught:
        await child.run(what)
    return caught.value


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:
        return False


async def gone(pid: int, within_s: float) -> bool:
    end = time.monotonic() + within_s
    while is_alive(pid) and time.monotonic() < end:
        await asyncio.sleep(0.02)
    return not is_alive(pid)


@pytest.mark.asyncio
async def test_a_child_is_kept_between_tasks_and_answers_with_progress() -> None:
    seen: list[tuple[str, int]] = []
    async with running() as child:
        first = await child.run(task("echo", text="x", data=b"y" * MIB), lambda *step: seen.append(step))
        pid = child.pid
        second = await child.run(task("who"))
    assert first.result == {"text": "x", "data": b"y" * MIB}
    assert seen == [("echo", 500_000)]
    assert first.peak > 5 * MIB
    assert second.result["pid"] == pid
    assert pid is not None
    assert not is_alive(pid)


@pytest.mark.asyncio
async def test_a_child_has_nothing_of_the_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEXUS_EDGE_NODE__KEY", "planted secret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/planted")
    with (tmp_path / "node-key").open("w") as key:
        os.set_inheritable(key.fileno(), True)
        async with running() as child:
            who = (await child.run(task("who"))).result
    assert "planted" not in str(who["environment"])
    assert not [handle for handle in who["handles"] if "node-key" in handle]
    assert who["session"] == who["pid"]
    assert who["oom"] == 800
    assert who["cwd"] == "/"


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGILL])
async def test_a_killed_child_fails_its_task_and_the_next_gets_another(number: signal.Signals) -> None:
    async with running() as child:
        before = (await child.run(task("who"))).result["pid"]
        failed = await failure(child, task("kill", signal=int(number)))
        after = (await child.run(task("who"))).result["pid"]
    assert failed.reason is Failure.CRASH
    assert number.name in str(failed)
    assert before != after


@pytest.mark.asyncio
async def test_a_segfault_is_a_failed_task() -> None:
    async with running() as child:
        failed = await failure(child, task("segfault"))
    assert (failed.reason, "SIGSEGV" in str(failed)) == (Failure.CRASH, True)


@pytest.mark.asyncio
async def test_a_child_killed_from_outside_fails_its_task() -> None:
    async with running() as child:
        await child.start()
        assert child.pid is not None
        asyncio.get_running_loop().call_later(0.2, os.kill, child.pid, signal.SIGKILL)
        failed = await failure(child, task("hang"))
        assert (await child.run(task("echo", x=1))).result == {"x": 1}
    assert failed.reason is Failure.CRASH


@pytest.mark.asyncio
@pytest.mark.parametrize("function", ["allocate", "allocate_natively"])
async def test_more_memory_than_allowed_fails_with_both_numbers(function: str) -> None:
    async with running() as child:
        await child.run(task(function, limit=100 * MIB, size=60 * MIB))
        before = child.pid
        failed = await failure(child, task(function, forecast=80 * MIB, limit=100 * MIB, size=160 * MIB))
        again = await child.run(task("allocate", size=160 * MIB))
        after = child.pid
    assert failed.reason is Failure.MEMORY
    assert (failed.forecast, failed.limit) == (80 * MIB, 100 * MIB)
    assert "forecast 80 MiB, allowed 100 MiB" in str(failed)
    assert again.result == {"size": 160 * MIB}
    assert before != after


@pytest.mark.asyncio
async def test_the_peak_is_of_one_task() -> None:
    async with running() as child:
        large = await child.run(task("allocate", size=200 * MIB))
        small = await child.run(task("echo"))
    assert large.peak > 200 * MIB
    assert small.peak < 100 * MIB


@pytest.mark.asyncio
async def test_a_panic_ends_the_child_and_a_bug_does_not() -> None:
    async with running() as child:
        bug = await failure(child, task("wrong"))
        before = child.pid
        panicked = await failure(child, task("panic"))
        await child.run(task("echo"))
        after = child.pid
    assert (bug.reason, panicked.reason) == (Failure.ERROR, Failure.CRASH)
    assert "ZeroDivisionError: a bug" in str(bug)
    assert "Panic: index out of bounds" in str(panicked)
    assert before != after


@pytest.mark.asyncio
async def test_a_hang_ends_at_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_edge.compute.process.CANCEL_S", 0.3)
    async with running() as child:
        await child.start()
        pid = child.pid
        started = time.monotonic()
        failed = await failure(child, task("hang", deadline_s=0.3))
        took = time.monotonic() - started
        assert pid is not None
        assert not is_alive(pid)
        await child.run(task("echo"))
    assert failed.reason is Failure.DEADLINE
    assert 0.6 <= took < 3


@pytest.mark.asyncio
async def test_work_that_listens_is_stopped_at_its_deadline_and_the_child_lives() -> None:
    async with running() as child:
        await child.start()
        pid = child.pid
        failed = await failure(child, task("work", deadline_s=0.2, seconds=20))
        await child.run(task("echo"))
        assert child.pid == pid
    assert failed.reason is Failure.DEADLINE


@pytest.mark.asyncio
async def test_cancelling_stops_the_work_at_once_and_keeps_the_child() -> None:
    async with running() as child:
        await child.start()
        pid = child.pid
        asked = asyncio.create_task(child.run(task("work", seconds=20)))
        await asyncio.sleep(0.2)
        started = time.monotonic()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        answer = await child.run(task("echo", x=2))
        assert time.monotonic() - started < 2
        assert (answer.result, child.pid) == ({"x": 2}, pid)


@pytest.mark.asyncio
async def test_cancelling_a_hang_kills_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_edge.compute.process.CANCEL_S", 0.2)
    async with running() as child:
        await child.start()
        pid = child.pid
        asked = asyncio.create_task(child.run(task("hang")))
        await asyncio.sleep(0.1)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert (await child.run(task("echo", x=3))).result == {"x": 3}
        assert pid is not None
        assert not is_alive(pid)


GARBAGE = [
    struct.pack(">I", 0),
    struct.pack(">I", 0xFFFFFFFF),
    struct.pack(">I", 4) + b"\xff\xff\xff\xff",
    struct.pack(">I", 1) + b"\x01",
    struct.pack(">I", 3) + b"\xa1\x61t",
    struct.pack(">I", 5) + b"\xa1\x61t\x01\x00",
    struct.pack(">I", 5) + b"\xa1\x61t\x61x",
    struct.pack(">I", 8) + b"\xa1\x61t\x64done",
    b"GET / HTTP/1.1\r\n\r\n",
]


@pytest.mark.asyncio
@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
async def test_a_child_that_talks_nonsense_is_ended(data: bytes) -> None:
    async with running() as child:
        await child.start()
        pid = child.pid
        failed = await failure(child, task("say", data=data))
        assert (await child.run(task("echo", x=4))).result == {"x": 4}
        assert pid is not None
        assert not is_alive(pid)
    assert failed.reason is Failure.CRASH


@pytest.mark.asyncio
async def test_a_result_that_cannot_be_sent_is_a_failed_task() -> None:
    async with running() as child:
        with pytest.raises(NexusEdgeError, match="float"):
            await child.run(task("unspeakable"))
        with pytest.raises(ChildFailed, match="echo_"):
            await child.run(task("echo_"))


@pytest.mark.asyncio
async def test_a_flood_of_progress_does_not_pile_up() -> None:
    seen = 0

    def count(_phase: str, _ppm: int) -> None:
        nonlocal seen
        seen += 1

    async with running() as child:
        await child.run(task("flood", frames=5000), count)
    assert seen == 5000


@pytest.mark.asyncio
async def test_a_command_that_is_no_child_is_an_error() -> None:
    for command in (("/bin/false",), ("/nowhere/python",), (sys.executable, "-c", "print('hello')")):
        child = Child("test", threads=1, command=command)
        with pytest.raises(ChildFailed):
            await child.run(task("echo"))
        await child.stop()


@pytest.mark.asyncio
async def test_a_child_for_which_there_is_no_descriptor_is_a_failed_child() -> None:
    child = made()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for spare in range(8):  # wherever on the way they run out
        taken = [os.open(os.devnull, os.O_RDONLY)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 64, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            for _ in range(spare):
                os.close(taken.pop())
            with contextlib.suppress(ChildFailed):
                await child.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for one in taken:
                os.close(one)
    assert (await child.run(task("echo", word="again"))).result
    await child.stop()


AGENT = """
import asyncio, sys
from nexus_edge.compute.process import Child, Task

async def main():
    child = Child("orphan", threads=1, environment={"PYTHONPATH": sys.argv[1]})
    await child.start()
    print(child.pid, flush=True)
    await child.run(Task("child_tasks:hang", {}, 60))

asyncio.run(main())
"""


@pytest.mark.asyncio
async def test_children_die_with_a_killed_agent() -> None:
    command = (sys.executable, "-c", AGENT, f"{ROOT}:{HERE}")
    agent = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert agent.stdout is not None
    pid = int(await agent.stdout.readline())
    await asyncio.sleep(0.2)
    assert is_alive(pid)
    agent.kill()
    await agent.communicate()
    assert await gone(pid, 3)


def pool(devices: int) -> Pool:
    return Pool([Device(f"cpu{n}", "cpu", "test", 1, Bytes(MIB)) for n in range(devices)], child=lambda device: made(device.id))


@pytest.mark.asyncio
async def test_a_pool_runs_one_task_a_device_and_the_rest_wait() -> None:
    async with pool(2) as both:
        await both.warm()
        started = time.monotonic()
        await asyncio.gather(*(both.run(task("work", seconds=1)) for _ in range(4)))
        took = time.monotonic() - started
        assert (both.slots, both.busy) == (2, 0)
    assert 2 <= took < 3.5


@pytest.mark.asyncio
async def test_a_pool_sends_like_work_to_the_same_child() -> None:
    async with pool(2) as both:
        pids: dict[bytes, int] = {}
        for kind in (b"a", b"b", b"a", b"b", b"a"):
            pid = (await both.run(task("who"), kind=kind)).result["pid"]
            assert pids.setdefault(kind, pid) == pid


@pytest.mark.asyncio
async def test_a_cancelled_task_frees_its_device_when_the_child_has_stopped() -> None:
    async with pool(1) as one:
        await one.warm()
        asked = asyncio.create_task(one.run(task("work", seconds=20)))
        await asyncio.sleep(0.2)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert one.busy == 1
        assert (await one.run(task("echo", x=5))).result == {"x": 5}
        assert one.busy == 0


@pytest.mark.asyncio
async def test_a_closed_pool_takes_no_work_and_starts_nothing() -> None:
    one = pool(1)
    running = asyncio.create_task(one.run(task("work", seconds=20)))
    waiting = asyncio.create_task(one.run(task("echo")))
    await asyncio.sleep(0.5)
    running.cancel()
    await one.close()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(ChildFailed, match="stopping"):
        await waiting
    assert set(one.pids.values()) == {None}


@pytest.mark.asyncio
async def test_a_task_cancelled_while_its_child_starts_leaves_no_process() -> None:
    async with running() as child:
        for delay_s in (0, 0.001, 0.02, 0.1):
            asked = asyncio.create_task(child.run(task("hang")))
            await asyncio.sleep(delay_s)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            await child.stop()
            assert child.pid is None
        assert (await child.run(task("echo", x=6))).result == {"x": 6}
