"""The process that executes and proves: `python -m nexus_edge.compute.child SOCKET PARENT`.

It does one task at a time, in the order of the frames (`nexus_edge.compute.frames`). A task is a function named `module:function`, called
with a `Report` and the arguments of the frame; it returns a map. The process ends with the agent, whatever ends the agent.

It may die: of a signal, of its memory limit, of a bug. Then the task has failed and nothing else.
"""

import contextlib
import ctypes
import gc
import importlib
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nexus_edge.compute import frames
from nexus_edge.compute.errors import Failure
from nexus_edge.errors import Cancelled, NexusEdgeError, ProofRejected
from nexus_edge.memory import peak_rss
from nexus_edge.wire.cbor import Value
from nexus_edge.wire.errors import BadObject

OOM_SCORE: Final = 800  # of 1000: when memory is short the kernel takes a child, which is a failed job, before it takes the agent
REPORT_S: Final = 0.05  # 20 a second is more than anyone looks at; a new phase is always reported
TEXT: Final = 400  # characters of an error's text

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38


class Report:
    """What a task calls between steps: it tells the parent, and says whether to go on."""

    def __init__(self, child: "_Connection", task: int) -> None:
        self._child = child
        self._task = task
        self._phase = ""
        self._next = 0.0

    def __call__(self, phase: str, fraction: float) -> bool:
        """Phase, and how much of it is done. False: stop."""
        now = time.monotonic()
        if phase != self._phase or now >= self._next:
            self._phase, self._next = phase, now + REPORT_S
            ppm = min(1_000_000, max(0, round(fraction * 1_000_000)))
            self._child.send({"t": "progress", "id": self._task, "phase": phase[:24], "ppm": ppm})
        return not self.cancelled

    @property
    def cancelled(self) -> bool:
        """Whether the parent wants no answer any more."""
        return self._child.is_cancelled(self._task)


class _Connection:
    """The socket to the parent. A thread reads it, so that a cancel is seen while a task runs, and the parent's end is too."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._cancelled = 0
        self.tasks: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="parent", daemon=True).start()

    def is_cancelled(self, task: int) -> bool:
        return task <= self._cancelled

    def send(self, message: Mapping[str, Value]) -> None:
        self.send_frame(frames.frame(message))

    def send_frame(self, frame: bytes) -> None:
        self._sock.sendall(frame)

    def _read(self) -> None:
        try:
            while True:
                (length,) = frames.HEAD.unpack(self._exactly(frames.HEAD.size))
                frames.check_length(length)
                message: Mapping[str, Any] = frames.message(bytes(self._exactly(length)))
                if message["t"] == "cancel":
                    self._cancelled = max(self._cancelled, message["id"])
                else:
                    self.tasks.put(message)
        except (OSError, EOFError, BadObject):
            # The agent is gone, or insane: nobody wants what this process does.
            os._exit(0)

    def _exactly(self, length: int) -> bytearray:
        data = bytearray(length)
        view, have = memoryview(data), 0
        while have < length:
            got = self._sock.recv_into(view[have:])
            if not got:
                raise EOFError
            have += got
        return data


def main() -> None:
    """Serve tasks until the parent closes the socket."""
    handle, parent = int(sys.argv[1]), int(sys.argv[2])
    _confine(parent)
    connection = _Connection(socket.socket(fileno=handle))
    connection.send({"t": "ready"})
    while True:
        _serve(connection, connection.tasks.get())


def _confine(parent: int) -> None:
    """Die with the agent; be the first that is killed for memory; leave no core file with somebody's input in it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    Path("/proc/self/oom_score_adj").write_text(f"{OOM_SCORE}\n", encoding="ascii")


def _serve(connection: _Connection, task: Mapping[str, Any]) -> None:
    number, fatal = task["id"], False
    try:
        work = _function(task["function"])
        gc.freeze()  # modules are here to stay, and collections need not look at them
        _forget_peak()
        _limit(task["memory"])
        try:
            result = work(Report(connection, number), **task["arguments"])
            answer = frames.frame({"t": "done", "id": number, "result": result, "peak": peak_rss()})
        finally:
            _limit(None)
    except MemoryError:
        answer, fatal = _failed(number, Failure.MEMORY, "no memory is left to allocate"), True
    except Cancelled:
        answer = _failed(number, Failure.CANCELLED, "stopped")
    except NexusEdgeError as known:
        answer = _known(number, known)
    except Exception as unknown:  # noqa: BLE001 - the boundary of the process: the parent is told, and judges
        answer = _failed(number, Failure.ERROR, f"{type(unknown).__name__}: {unknown}")
    except BaseException as panic:  # noqa: BLE001 - likewise: a panic of the native module is no `Exception`
        answer, fatal = _failed(number, Failure.CRASH, f"{type(panic).__name__}: {panic}"), True
    connection.send_frame(answer)
    if fatal:
        # What an interrupted allocation or a panic left behind is nobody's to guess: the next task gets a fresh process.
        os._exit(1)


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def _known(number: int, error: NexusEdgeError) -> bytes:
    detail = error.reason.value if isinstance(error, ProofRejected) else ""
    texts = {"what": error.what[:TEXT], "why": error.why[:TEXT], "hint": error.hint[:TEXT]}
    return frames.frame({"t": "failed", "id": number, "reason": "", "error": type(error).__name__, "detail": detail, **_clean(texts)})


def _failed(number: int, reason: Failure, why: str) -> bytes:
    texts = _clean({"what": "", "why": why[:TEXT], "hint": ""})
    return frames.frame({"t": "failed", "id": number, "reason": reason.value, "error": "", "detail": "", **texts})


def _clean(texts: dict[str, str]) -> dict[str, str]:
    """Texts that CBOR can carry: an error may quote anything."""
    return {key: unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode()) for key, text in texts.items()}


def _limit(memory: int | None) -> None:
    """Let the process take so much more than it has now, in bytes: private memory that can be written (`VmData`)."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if memory is None:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
        return
    resource.setrlimit(resource.RLIMIT_DATA, (_held() + memory, hard))


def _held() -> int:
    """Private writable memory, in bytes, touched or not: what the limit is compared with."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    return pages * resource.getpagesize()


def _forget_peak() -> None:
    """Measure the peak anew for each task; a kernel that cannot gives the peak of all tasks."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


if __name__ == "__main__":
    main()
