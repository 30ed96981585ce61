"""The admin API: JSON over HTTP on a unix socket, for the user of the agent (or a group). Changes are on record before they are made."""

import asyncio
import secrets
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import structlog
from aiohttp import web
from pydantic import ValidationError

from nexus_edge.api.errors import INTERNAL, Busy, problem
from nexus_edge.api.models import (
    ENDED,
    INPUT_BYTES,
    Audit,
    DeedRequest,
    Done,
    DrainRequest,
    GrantRequest,
    Jobs,
    JobView,
    Peers,
    Problem,
    Proofs,
    Request,
    RunRequest,
    View,
)
from nexus_edge.api.routes import AUDIT_HEADER, BYTES, JSON, Route, Routes
from nexus_edge.api.socket import admin_socket
from nexus_edge.api.streams import INTERVAL_S, SLOW_READER_S, WATCHERS, Snapshots, changes, send
from nexus_edge.api.view import AgentView
from nexus_edge.errors import BadInput, NexusEdgeError, UsageError

BODY_BYTES: Final = 2 * INPUT_BYTES
"""An input in base64 and what is beside it."""
LARGE_BODY: Final = 256 * 1024
"""Reading a larger body takes milliseconds: it is done in a thread."""
REQUEST_S: Final = 30.0
"""Of every request but streams and files: nothing here waits for peers."""
FILE_S: Final = 420.0
"""To read a model and to commit to its weights: longer than the child has that does it."""
FILES: Final = 2
"""Models that are brought at once: each takes a child's memory."""
PIECE: Final = 1 << 20
NAME: Final = 64
"""Characters of a model's name."""
KEEPALIVE_S: Final = 15.0
LINGERING_S: Final = 1.0
"""What is left of a body that was refused is read and dropped for so long, so that the refusal arrives."""
SHUTDOWN_S: Final = 2.0
"""For requests in progress when the server closes."""

_UCRED: Final = struct.Struct("3i")

R = TypeVar("R", bound=Request)
log = structlog.get_logger("api")


class AdminServer:
    """Serves an `AgentView`: `async with AdminServer(view, path):`."""

    def __init__(
        self,
        view: AgentView,
        path: Path,
        group: str | None = None,
        *,
        interval_s: float = INTERVAL_S,
        request_s: float = REQUEST_S,
        slow_reader_s: float = SLOW_READER_S,
    ) -> None:
        self.path = path
        self._view = view
        self._group = group
        self._request_s = request_s
        self._slow_reader_s = slow_reader_s
        self._snapshots = Snapshots(view.snapshot, interval_s)
        self._streams: set[asyncio.Task[Any]] = set()
        self._files = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            listener = stack.enter_context(admin_socket(self.path, self._group))
            runner = web.AppRunner(
                self._application(),
                access_log=None,
                handler_cancellation=True,
                keepalive_timeout=KEEPALIVE_S,
                shutdown_timeout=SHUTDOWN_S,
                lingering_time=LINGERING_S,
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.SockSite(runner, listener).start()
            stack.callback(self._end_streams)
            self._stack = stack.pop_all()
        log.info("administration", socket=self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _end_streams(self) -> None:
        self._snapshots.stop()
        for stream in self._streams:
            stream.cancel()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=BODY_BYTES)
        for route, handler in self._handlers().items():
            application.router.add_route(route.value.method, route.value.path, self._handler(route.value, handler))
        return application

    def _handlers(self) -> dict[Routes, Callable[[web.Request], Awaitable["View | _Changed | web.StreamResponse"]]]:
        return {
            Routes.SNAPSHOT: lambda _: self._view.snapshot(),
            Routes.SNAPSHOTS: lambda request: self._stream(request, self._snapshots.lines()),
            Routes.JOBS: self._jobs,
            Routes.JOB: lambda request: self._view.job(_job(request)),
            Routes.WATCH: self._watch,
            Routes.OUTPUT: self._output,
            Routes.PEERS: self._peers,
            Routes.PROOFS: self._proofs,
            Routes.LEDGER: lambda _: self._view.ledger(),
            Routes.IMPORT: self._import,
            Routes.SUBMIT: self._submit,
            Routes.CANCEL: self._cancel,
            Routes.GRANT: self._grant,
            Routes.DEED: self._deed,
            Routes.DRAIN: self._drain,
            Routes.SHUTDOWN: self._shutdown,
        }

    def _handler(
        self, route: Route, handle: Callable[[web.Request], Awaitable["View | _Changed | web.StreamResponse"]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            async with asyncio.timeout(None if route.stream else FILE_S if route.file else self._request_s):
                given = await handle(request)
            if isinstance(given, web.StreamResponse):
                return given
            view, headers = (given.view, {AUDIT_HEADER: given.audit}) if isinstance(given, _Changed) else (given, None)
            return web.Response(body=view.model_dump_json().encode(), content_type=JSON, headers=headers)

        return answer

    @web.middleware
    async def _guard(self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        """Every error becomes a typed answer."""
        try:
            return await handler(request)
        except NexusEdgeError as failed:
            said, status = problem(failed)
        except TimeoutError:
            said, status = problem(Busy("the agent is too busy", f"no answer within {self._request_s:.0f} s", "try again"))
        except web.HTTPRequestEntityTooLarge:
            said, status = problem(_too_large())
        except web.HTTPException as refused:
            said, status = Problem(kind="usage", what="there is no such request", why=f"{request.method} {request.path}"), refused.status
        except Exception as bug:
            log.exception("a request failed", request=f"{request.method} {request.path}")
            said, status = (
                Problem(kind="internal", what="internal error", why=type(bug).__name__, hint="the agent's log has more"),
                INTERNAL,
            )
        return web.Response(status=status, body=b'{"error":' + said.model_dump_json().encode() + b"}", content_type=JSON)

    # What is asked

    async def _jobs(self, _: web.Request) -> View:
        return Jobs(jobs=await self._view.jobs())

    async def _peers(self, _: web.Request) -> View:
        return Peers(peers=await self._view.peers())

    async def _proofs(self, _: web.Request) -> View:
        return Proofs(proofs=await self._view.proofs())

    async def _output(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=await self._view.output(_job(request)), content_type=BYTES)

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        last: list[JobView] = []

        async def look() -> JobView:
            last[:] = [await self._view.job(_job(request))]
            return last[0]

        await look()  # one that does not exist is an error of the request
        return await self._stream(request, changes(look, lambda _: last[0].state in ENDED))

    async def _stream(self, request: web.Request, lines: AsyncGenerator[bytes]) -> web.StreamResponse:
        if len(self._streams) >= WATCHERS:
            raise Busy("too many watch the agent", f"{WATCHERS} do already", "close a terminal that does")
        task = asyncio.current_task()
        assert task is not None  # a handler runs in one
        self._streams.add(task)
        try:
            async with aclosing(lines):
                return await send(request, lines, self._slow_reader_s)
        finally:
            self._streams.discard(task)

    # What is changed

    async def _import(self, request: web.Request) -> "_Changed":
        name = request.query.get("name", "model")[:NAME]
        if not name.isprintable():
            raise UsageError("the model cannot be named so", "its name holds control characters")
        if self._files >= FILES:
            raise Busy("the agent is busy", f"{FILES} models are being imported", "try again")
        self._files += 1
        try:
            audit = await self._audit(request, "import", f"model {name}")
            return _Changed(audit, await self._view.import_model(request.content.iter_chunked(PIECE), name))
        finally:
            self._files -= 1

    async def _submit(self, request: web.Request) -> "_Changed":
        wanted = await _read(request, RunRequest)
        audit = await self._audit(request, "run", f"model {wanted.model}, input of {len(wanted.input)} bytes")
        return _Changed(audit, await self._view.submit(wanted))

    async def _cancel(self, request: web.Request) -> "_Changed":
        audit = await self._audit(request, "cancel", f"job {_job(request)}")
        return _Changed(audit, await self._view.cancel(_job(request)))

    async def _grant(self, request: web.Request) -> "_Changed":
        wanted = await _read(request, GrantRequest)
        audit = await self._audit(request, "grant", f"{wanted.amount_ucr} ucr to {wanted.peer}")
        return _Changed(audit, Done(audit=audit, text=await self._view.grant(wanted)))

    async def _deed(self, request: web.Request) -> "_Changed":
        wanted = await _read(request, DeedRequest)
        amount = "all" if wanted.amount_ucr is None else f"{wanted.amount_ucr} ucr"
        audit = await self._audit(request, wanted.what, f"{amount}, {wanted.peer}")
        return _Changed(audit, await self._view.deed(wanted))

    async def _drain(self, request: web.Request) -> "_Changed":
        wanted = await _read(request, DrainRequest)
        audit = await self._audit(request, "drain" if wanted.on else "resume", "then stop" if wanted.stop else "")
        return _Changed(audit, Done(audit=audit, text=await self._view.drain(wanted)))

    async def _shutdown(self, request: web.Request) -> "_Changed":
        audit = await self._audit(request, "shutdown", "")
        return _Changed(audit, Done(audit=audit, text=await self._view.shutdown()))

    async def _audit(self, request: web.Request, action: str, subject: str) -> str:
        pid, uid, gid = _who(request)
        audit = Audit(id=secrets.token_hex(8), at=datetime.now(UTC), uid=uid, gid=gid, pid=pid, action=action, subject=subject)
        await self._view.audit(audit)
        log.info("administrator", audit=audit.id, action=action, subject=subject, uid=uid, pid=pid)
        return audit.id


@dataclass(frozen=True)
class _Changed:
    """What a change gave, and its record."""

    audit: str
    view: View


def _who(request: web.Request) -> tuple[int, int, int]:
    """The process, user and group at the other end when it connected, as the kernel says."""
    assert request.transport is not None  # it has sent a request
    connection = request.transport.get_extra_info("socket")
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return pid, uid, gid


def _too_large() -> BadInput:
    return BadInput("the request is too large", f"it has more than {BODY_BYTES} bytes")


def _job(request: web.Request) -> str:
    return request.match_info["job"]


async def _read(request: web.Request, model: type[R]) -> R:
    """The body as what it should be. Errors name fields, never what is in them."""
    if (request.content_length or 0) > BODY_BYTES:
        raise _too_large()
    body = await request.read()
    try:
        if len(body) > LARGE_BODY:
            return await asyncio.to_thread(model.model_validate_json, body)
        return model.model_validate_json(body or b"{}")
    except ValidationError as wrong:
        faults = wrong.errors(include_url=False, include_input=False, include_context=False)
        why = "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'the body'}: {fault['msg'][:200]}" for fault in faults[:5])
        raise UsageError("the request makes no sense", why) from None
