"""The parent's side of a child: started when there is work, kept between tasks, replaced when it dies."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import nexus_edge
from nexus_edge import errors
from nexus_edge.compute import frames
from nexus_edge.compute.errors import ChildFailed, Failure
from nexus_edge.types import Bytes
from nexus_edge.wire.cbor import Value
from nexus_edge.wire.errors import BadObject

Progress = Callable[[str, int], None]
"""Called in the event loop with a phase and the millionths of it that are done: whenever the work says so, and never otherwise."""

START_S: Final = 30.0  # an interpreter and its imports take a third of a second; a machine under load a hundred times that
CANCEL_S: Final = 5.0  # the prover looks for a cancel several times a second; on the largest models every four seconds
EXIT_S: Final = 5.0  # from a closed socket to the end
LARGE: Final = 1 << 18  # frames above it are decoded in a thread: a megabyte takes a millisecond
ERROR_TAIL: Final = 4096  # bytes of a child's last words
FRAMES: Final = 16  # read ahead of whoever waits for them; then the child waits

COMMAND: Final = (sys.executable, "-P", "-m", "nexus_edge.compute.child")
INHERITED: Final = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
"""All that a child gets of the agent's environment: no credentials, no settings."""

T = TypeVar("T")

_FATAL: Final = (Failure.MEMORY, Failure.CRASH)
"""After these a child ends itself: what they left behind is nobody's to guess."""
_OUT_OF_MEMORY: Final = re.compile(rb"memory allocation of \d+ bytes failed|MemoryError")


@dataclass(frozen=True)
class Task:
    """What a child is to do."""

    function: str
    """`module:function`, called with a report and the arguments."""
    arguments: Mapping[str, Value] = field(repr=False)
    deadline_s: float
    forecast: Bytes | None = None
    """The memory it is said to need."""
    limit: Bytes | None = None
    """The memory it may take beyond what the child has, in bytes; None for no limit."""


@dataclass(frozen=True)
class Answer:
    """What a task returned, and the most memory that its process held meanwhile."""

    result: Mapping[str, Any]
    peak: Bytes


class _Ended(Exception):
    """The child says nothing more; the text says how its last frame was broken, if it was."""


class Child:
    """One child process, for one task at a time."""

    def __init__(self, name: str, *, threads: int, command: Sequence[str] = COMMAND, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.settling: asyncio.Task[Any] | None = None
        """Ends when the child is free again, after a task was given up or a process came or went; None while it is."""
        self._command = command
        self._environment = _environment(threads) | dict(environment or {})
        self._life: _Life | None = None
        self._number = 0

    @property
    def pid(self) -> int | None:
        """The running process."""
        return None if self._life is None else self._life.process.pid

    async def start(self) -> None:
        """Start the process unless it runs. Raises `ChildFailed`."""
        if self.settling is not None:
            await asyncio.wait([self.settling])
        if self._life is None or not self._life.is_usable:
            await self._to_its_end(self._start())

    async def run(self, task: Task, progress: Progress | None = None) -> Answer:
        """Do the task. Raises `ChildFailed`, and what the task raised if it is one of this package's errors.

        Cancelling stops the work; the child is free when `settling` ends.
        """
        await self.start()
        life = self._life
        assert life is not None
        self._number += 1
        killed_before = _kernel_kills()
        try:
            async with asyncio.timeout(task.deadline_s):
                return await life.ask(self._number, task, progress)
        except TimeoutError:
            await self._to_its_end(self._settle(life, self._number))
            raise ChildFailed(Failure.DEADLINE, f"it took longer than {task.deadline_s:g} s") from None
        except asyncio.CancelledError:
            self._begin(self._settle(life, self._number))
            raise
        except ChildFailed as failed:
            if failed.reason in _FATAL:
                await self._to_its_end(self._bury(life))
            raise
        except _Ended as ended:
            words = await self._to_its_end(self._bury(life))
            raise _died(life, words, str(ended), task, by_kernel=_kernel_kills() > killed_before) from None

    async def stop(self) -> None:
        """End the process."""
        if self.settling is not None:
            await asyncio.wait([self.settling])
        if self._life is not None:
            await self._to_its_end(self._bury(self._life, kill=False))

    async def _start(self) -> None:
        if self._life is not None:
            await self._bury(self._life)
        life = await _Life.begin(self.name, self._command, self._environment)
        try:
            async with asyncio.timeout(START_S):
                await life.ready()
        except (_Ended, TimeoutError) as failed:
            words = await life.end(kill=True)
            raise ChildFailed(Failure.CRASH, f"child {self.name} did not start: {words or failed}") from failed
        self._life = life

    async def _settle(self, life: "_Life", number: int) -> None:
        """After a task was given up: wait until the child has stopped it, or kill the child."""
        try:
            async with asyncio.timeout(CANCEL_S):
                await life.give_up(number)
        except (_Ended, TimeoutError):
            await self._bury(life)

    async def _bury(self, life: "_Life", *, kill: bool = True) -> str:
        if self._life is life:
            self._life = None
        return await life.end(kill=kill)

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Processes are started and ended whole, whoever is cancelled meanwhile."""
        return await asyncio.shield(self._begin(work))

    def _begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work, name=f"child {self.name}: start or end")
        self.settling = task
        task.add_done_callback(self._settled)
        return task

    def _settled(self, task: "asyncio.Task[Any]") -> None:
        self.settling = None
        if not task.cancelled():
            task.exception()  # told to whoever waits; if nobody does, the next `start` meets it again


class _Process:
    """A process, and its end in the event loop.

    `asyncio`'s own waits for ever when it is cancelled while a process starts, and has a thread wait for each.
    """

    def __init__(self, command: Sequence[str], frames: socket.socket, words: socket.socket, environment: Mapping[str, str]) -> None:
        # In the thread of the loop, which lives as long as the agent: the child dies with the thread that started it.
        self._process = subprocess.Popen(
            [*command, str(frames.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=words.fileno(),
            pass_fds=(frames.fileno(),),
            env=dict(environment),
            cwd="/",
            start_new_session=True,
        )
        self._ended = asyncio.Event()
        self._handle = os.pidfd_open(self._process.pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._handle, self._reap)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Its status once it has ended; minus a signal's number if that ended it."""
        return self._process.returncode

    def kill(self) -> None:
        if self.returncode is None:
            self._process.kill()

    async def wait(self) -> None:
        await self._ended.wait()

    def _reap(self) -> None:
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        self._process.wait()
        self._ended.set()


class _Life:
    """One process from start to end. Two tasks read what it says."""

    def __init__(self, process: _Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: socket.socket) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer
        self._frames: asyncio.Queue[Mapping[str, Any] | _Ended] = asyncio.Queue(FRAMES)
        self._words = b""
        self._words_from = words
        self._readers = [
            asyncio.create_task(self._read(), name=f"process {process.pid}: frames"),
            asyncio.create_task(self._read_words(), name=f"process {process.pid}: last words"),
        ]

    @classmethod
    async def begin(cls, name: str, command: Sequence[str], environment: Mapping[str, str]) -> "_Life":
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            pairs = []
            try:
                for _ in range(2):
                    mine, its = socket.socketpair()
                    ours.enter_context(mine)
                    theirs.enter_context(its)
                    mine.setblocking(False)
                    pairs.append((mine, its))
                sockets, words = pairs
                process = _Process(command, sockets[1], words[1], environment)
            except OSError as failed:
                raise ChildFailed(Failure.CRASH, f"child {name} cannot be started: {failed}") from failed
            ours.callback(process.kill)
            reader, writer = await asyncio.open_connection(sock=sockets[0])
            ours.pop_all()
            return cls(process, reader, writer, words[0])

    @property
    def is_usable(self) -> bool:
        """Whether the process runs and may still speak."""
        return self.process.returncode is None and not self._readers[0].done()

    async def ready(self) -> None:
        if (await self._next())["t"] != "ready":
            raise _Ended("its first words make no sense")

    async def ask(self, number: int, task: Task, progress: Progress | None) -> Answer:
        """Send a task, and follow it to its end."""
        ask: dict[str, Value] = {"t": "task", "id": number, "function": task.function, "arguments": task.arguments, "memory": task.limit}
        try:
            self._writer.write(frames.frame(ask))
            await self._writer.drain()
        except ConnectionError:
            raise _Ended("") from None
        while True:
            match await self._next():
                case {"t": "progress", "id": int(of), "phase": str(phase), "ppm": int(ppm)}:
                    if of == number and progress is not None:
                        progress(phase, ppm)
                case {"t": "done", "id": int(of), "result": Mapping() as result, "peak": int(peak)} if of == number:
                    return Answer(result, Bytes(peak))
                case {"t": "failed", "id": int(of)} as failed if of == number:
                    raise _reported(failed, task)
                case _:
                    raise _Ended("it said something that makes no sense")

    async def give_up(self, number: int) -> None:
        """Tell the child to stop, and skip what it still says of the task."""
        try:
            self._writer.write(frames.frame({"t": "cancel", "id": number}))
            await self._writer.drain()
        except ConnectionError:
            raise _Ended("") from None
        while True:
            said = await self._next()
            if said["t"] in ("done", "failed") and said.get("id") == number:
                if said.get("reason") in _FATAL:
                    raise _Ended("")
                return

    async def end(self, *, kill: bool) -> str:
        """Close, reap and release everything. Returns the end of what the process wrote to standard error."""
        self._writer.close()
        if kill:
            self.process.kill()
        try:
            async with asyncio.timeout(EXIT_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        self._readers[0].cancel()
        # A grandchild may hold standard error open.
        await asyncio.wait(self._readers, timeout=1)
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        self._words_from.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        return self._words.decode("utf-8", "replace").strip()

    async def _next(self) -> Mapping[str, Any]:
        said = await self._frames.get()
        if isinstance(said, _Ended):
            raise said
        return said

    async def _read(self) -> None:
        try:
            while True:
                (length,) = frames.HEAD.unpack(await self._reader.readexactly(frames.HEAD.size))
                frames.check_length(length)
                body = await self._reader.readexactly(length)
                said = frames.message(body) if length < LARGE else await asyncio.to_thread(frames.message, body)
                await self._frames.put(said)
        except (asyncio.IncompleteReadError, ConnectionError):
            await self._frames.put(_Ended(""))
        except BadObject as broken:
            await self._frames.put(_Ended(broken.why))

    async def _read_words(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while said := await loop.sock_recv(self._words_from, ERROR_TAIL):
                self._words = (self._words + said)[-ERROR_TAIL:]


def _environment(threads: int) -> dict[str, str]:
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return kept | {
        "PYTHONPATH": str(Path(nexus_edge.__file__).parent.parent),
        "RAYON_NUM_THREADS": str(threads),
        # Else the native module's allocator holds a gibibyte from the start, and no limit below that could bind.
        "MIMALLOC_ARENA_EAGER_COMMIT": "0",
    }


def _died(life: _Life, words: str, broken: str, task: Task, *, by_kernel: bool) -> ChildFailed:
    """Why a child ended without an answer. It has been reaped."""
    code = life.process.returncode
    if _OUT_OF_MEMORY.search(words.encode()) or (by_kernel and code == -signal.SIGKILL):
        why = "the kernel killed it: no memory is left" if by_kernel else "it needed more than it may take"
        return ChildFailed(Failure.MEMORY, why, forecast=task.forecast, limit=task.limit)
    if broken:
        return ChildFailed(Failure.CRASH, f"the child was ended: {broken}")
    last = words.splitlines()[-1][:200] if words else "it said nothing"
    how = f"of signal {-code} ({signal.Signals(-code).name})" if code is not None and code < 0 else f"with status {code}"
    return ChildFailed(Failure.CRASH, f"the child ended {how}: {last}")


def _reported(said: Mapping[str, Any], task: Task) -> errors.NexusEdgeError:
    """The error that a child reports. Only this package's own kinds become what they were."""
    texts = [str(said.get(key, "")) for key in ("what", "why", "hint")]
    kind, reason = said.get("error"), said.get("reason")
    if reason:
        failure = Failure(reason) if reason in list(Failure) else Failure.ERROR
        return ChildFailed(failure, texts[1], forecast=task.forecast, limit=task.limit)
    if kind == "ProofRejected" and said.get("detail") in list(errors.RejectReason):
        return errors.ProofRejected(errors.RejectReason(said["detail"]), *texts[1:])
    known = _KNOWN.get(str(kind))
    return ChildFailed(Failure.ERROR, f"{kind}: {texts[0]}: {texts[1]}") if known is None else known(*texts)


_KNOWN: Final[dict[str, type[errors.NexusEdgeError]]] = {
    kind.__name__: kind
    for kind in (
        errors.BadInput,
        errors.FileError,
        errors.MalformedModel,
        errors.ModelError,
        errors.NoRandomness,
        errors.OpeningError,
        errors.OpeningSpent,
        errors.ProverError,
        errors.SelfCheckFailed,
        errors.UncoveredMask,
        errors.UnsupportedModel,
    )
}


def _kernel_kills() -> int:
    """How many processes the kernel has killed for memory since it started, as far as it says."""
    try:
        with open("/proc/vmstat", encoding="ascii") as lines:  # noqa: PTH123 - a loop over lines of a kernel file
            return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
    except OSError:
        return 0
