"""The client of the admin API, for commands and screens."""

import asyncio
import io
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Self, TypeVar
from urllib.parse import urlencode

import aiohttp
from pydantic import ValidationError

from nexus_edge.api.errors import error_from
from nexus_edge.api.models import (
    DeedRequest,
    DeedView,
    Done,
    DrainRequest,
    GrantRequest,
    Jobs,
    JobView,
    LedgerView,
    ModelView,
    Peers,
    PeerView,
    Problem,
    Proofs,
    ProofView,
    Request,
    RunRequest,
    Snapshot,
    View,
)
from nexus_edge.api.routes import BYTES, JSON, Route, Routes
from nexus_edge.errors import AgentUnavailable, NexusEdgeError

CONNECT_S: Final = 2.0
ANSWER_S: Final = 35.0
"""Longer than the agent gives itself, so that its own words arrive."""
FILE_S: Final = 440.0
"""Likewise for a model."""
SILENCE_S: Final = 10.0
"""Between two lines of a stream of snapshots."""
LINE_BYTES: Final = 4 << 20
"""Of a stream. A snapshot has some ten kilobytes."""

V = TypeVar("V", bound=View)
T = TypeVar("T")


class AdminClient:
    """Talks to the agent at the first of some sockets where one answers: `async with AdminClient(paths) as agent:`.

    Every method raises `AgentUnavailable` if none does, and what the agent raised.
    """

    def __init__(self, sockets: Sequence[Path]) -> None:
        self._sockets = tuple(sockets)
        self._session: aiohttp.ClientSession | None = None
        self._path = self._sockets[0]

    async def __aenter__(self) -> Self:
        failures: list[AgentUnavailable] = []
        for path in self._sockets:
            try:
                await _try(path)
            except AgentUnavailable as failed:
                failures.append(failed)
                continue
            self._path = path
            connector = aiohttp.UnixConnector(str(path))
            timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_S)
            self._session = aiohttp.ClientSession("http://agent", connector=connector, timeout=timeout, read_bufsize=LINE_BYTES // 2)
            return self
        raise next((failed for failed in failures if "there is no" not in failed.why), failures[0])

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def snapshot(self) -> Snapshot:
        """Everything at a glance."""
        return await self._get(Routes.SNAPSHOT, Snapshot)

    def snapshots(self) -> AsyncGenerator[Snapshot]:
        """The same, once a second. Ends when the agent does."""
        return self._lines(Routes.SNAPSHOTS.value.path, Snapshot, SILENCE_S)

    async def jobs(self) -> tuple[JobView, ...]:
        """All jobs that are kept, newest first."""
        return (await self._get(Routes.JOBS, Jobs)).jobs

    async def job(self, job: str) -> JobView:
        """One job."""
        return await self._get(Routes.JOB, JobView, job=job)

    def watch(self, job: str) -> AsyncGenerator[JobView]:
        """One job whenever it changes, until it has ended."""
        return self._lines(Routes.WATCH.value.at(job=job), JobView, None)

    async def output(self, job: str) -> bytes:
        """The verified answer of a job, as a file of arrays."""
        return await self._bytes(Routes.OUTPUT.value, None, job=job)

    async def peers(self) -> tuple[PeerView, ...]:
        """All peers."""
        return (await self._get(Routes.PEERS, Peers)).peers

    async def proofs(self) -> tuple[ProofView, ...]:
        """All proofs that are kept, newest first."""
        return (await self._get(Routes.PROOFS, Proofs)).proofs

    async def ledger(self) -> LedgerView:
        """The books."""
        return await self._get(Routes.LEDGER, LedgerView)

    async def import_model(self, file: BinaryIO, name: str) -> ModelView:
        """Bring a model, whose file the agent need not be able to read."""
        return _view(ModelView, await self._bytes(Routes.IMPORT.value, file, query="?" + urlencode({"name": name})))

    async def submit(self, request: RunRequest) -> JobView:
        """Begin a job."""
        return await self._get(Routes.SUBMIT, JobView, request)

    async def cancel(self, job: str) -> JobView:
        """Stop a job."""
        return await self._get(Routes.CANCEL, JobView, job=job)

    async def grant(self, request: GrantRequest) -> Done:
        """Set what is lent to a peer."""
        return await self._get(Routes.GRANT, Done, request)

    async def deed(self, request: DeedRequest) -> DeedView:
        """Write down what owners settled between themselves."""
        return await self._get(Routes.DEED, DeedView, request)

    async def drain(self, request: DrainRequest) -> Done:
        """Stop or resume taking work."""
        return await self._get(Routes.DRAIN, Done, request)

    async def shutdown(self) -> Done:
        """Stop the agent."""
        return await self._get(Routes.SHUTDOWN, Done)

    async def _get(self, route: Routes, model: type[V], request: Request | None = None, **parts: str) -> V:
        body = None if request is None else io.BytesIO(request.model_dump_json().encode())
        return _view(model, await self._bytes(route.value, body, **parts))

    async def _bytes(self, route: Route, body: BinaryIO | None, query: str = "", **parts: str) -> bytes:
        path = route.at(**parts) + query
        answer_s = FILE_S if route.file else ANSWER_S
        try:
            async with asyncio.timeout(answer_s), self._open(route.method, path, body, BYTES if route.file else JSON) as response:
                answer: bytes = await response.read()
        except TimeoutError:
            raise self._silent(answer_s) from None
        except (aiohttp.ClientError, OSError) as lost:
            raise self._lost(lost) from lost
        if response.status >= 400:
            raise _refusal(answer)
        return answer

    async def _lines(self, path: str, model: type[V], silence_s: float | None) -> AsyncGenerator[V]:
        try:
            async with self._open("GET", path, None) as response:
                if response.status >= 400:
                    raise _refusal(await response.read())
                while True:
                    async with asyncio.timeout(silence_s):
                        line = await response.content.readline()
                    if not line:
                        return
                    if line.startswith(b'{"error":'):
                        raise _refusal(line)
                    yield _view(model, line)
        except TimeoutError:
            raise self._silent(silence_s or 0) from None
        except ValueError:
            raise AgentUnavailable("the agent makes no sense", f"a line has more than {LINE_BYTES} bytes") from None
        except (aiohttp.ClientError, OSError) as lost:
            raise self._lost(lost) from lost

    def _open(self, method: str, path: str, body: BinaryIO | None, kind: str = JSON) -> Any:
        if self._session is None:
            raise AgentUnavailable("the connection to the agent is closed")
        return self._session.request(method, path, data=body, headers={"Content-Type": kind} if body else None)

    def _silent(self, seconds: float) -> AgentUnavailable:
        return AgentUnavailable("the agent does not answer", f"nothing for {seconds:.0f} s on {self._path}", "its log may say why")

    def _lost(self, error: Exception) -> AgentUnavailable:
        return AgentUnavailable(
            "the agent went away", f"{self._path}: {str(error) or type(error).__name__}", "`nexus-edge up` starts it again"
        )


def ask(sockets: Sequence[Path], question: Callable[[AdminClient], Awaitable[T]]) -> T:
    """One question from code that is not asynchronous."""

    async def answer() -> T:
        async with AdminClient(sockets) as agent:
            return await question(agent)

    return asyncio.run(answer())


async def _try(path: Path) -> None:
    """Connect once, to say exactly what is wrong if that fails."""
    nobody = "no agent answers"
    try:
        async with asyncio.timeout(CONNECT_S):
            _, writer = await asyncio.open_unix_connection(path)
    except FileNotFoundError:
        raise AgentUnavailable(nobody, f"there is no {path}", "`nexus-edge up` starts one") from None
    except ConnectionRefusedError:
        raise AgentUnavailable(nobody, f"nobody listens on {path}: it was killed", "`nexus-edge up` starts it again") from None
    except PermissionError:
        hint = "only the agent's user may, or members of the group in its setting api.group"
        raise AgentUnavailable("the agent cannot be asked", f"you may not open {path}", hint) from None
    except TimeoutError:
        raise AgentUnavailable(nobody, f"{path} does not accept within {CONNECT_S:.0f} s", "the machine or the agent hangs") from None
    except OSError as failed:
        raise AgentUnavailable(nobody, f"{path}: {failed.strerror or failed}", "`nexus-edge up` starts one") from None
    writer.close()
    await writer.wait_closed()


def _view(model: type[V], data: bytes) -> V:
    try:
        return model.model_validate_json(data)
    except ValidationError as wrong:
        raise AgentUnavailable(
            "the agent makes no sense", f"its {model.__name__} has {wrong.error_count()} faults", "is it of another version?"
        ) from wrong


def _refusal(data: bytes) -> NexusEdgeError:
    envelope = _view(_Envelope, data)
    return error_from(envelope.error)


class _Envelope(View):
    error: Problem
