"""What the children of the tests do: the same deaths that real work can die, made to order."""

import ctypes
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Report = Callable[[str, float], bool]


def echo(report: Report, **arguments: Any) -> dict[str, Any]:
    report("echo", 0.5)
    return arguments


def who(_report: Report) -> dict[str, Any]:
    # The one for this listing itself is gone by now.
    handles = [str(handle.readlink()) for handle in list(Path("/proc/self/fd").iterdir()) if handle.exists()]
    score = int(Path("/proc/self/oom_score_adj").read_text(encoding="ascii"))
    found = {"pid": os.getpid(), "session": os.getsid(0), "oom": score, "environment": dict(os.environ), "cwd": str(Path.cwd())}
    return {**found, "handles": handles}


def allocate(_report: Report, size: int) -> dict[str, Any]:
    return {"size": len(bytearray(size))}


def allocate_natively(_report: Report, size: int) -> dict[str, Any]:
    """As the Rust runtime does it: a message, and abort."""
    ctypes.CDLL(None).malloc.restype = ctypes.c_void_p
    if not ctypes.CDLL(None).malloc(ctypes.c_size_t(size)):
        sys.stderr.write(f"memory allocation of {size} bytes failed\n")
        sys.stderr.flush()
        os.abort()
    return {}


def segfault(_report: Report) -> dict[str, Any]:
    ctypes.string_at(0)
    return {}


def kill(_report: Report, signal: int) -> dict[str, Any]:
    os.kill(os.getpid(), signal)
    time.sleep(60)
    return {}


class Panic(BaseException):
    """What a panic of the native module is in Python."""


def panic(_report: Report) -> dict[str, Any]:
    raise Panic("index out of bounds")


def wrong(_report: Report) -> dict[str, Any]:
    raise ZeroDivisionError("a bug")


def hang(_report: Report) -> dict[str, Any]:
    while True:
        time.sleep(60)


def work(report: Report, seconds: float | int) -> dict[str, Any]:
    """In steps, as the prover does it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not report("work", 0.25):
            from nexus_edge.errors import Cancelled

            raise Cancelled("stopped")
        time.sleep(0.01)
    return {}


def flood(report: Report, frames: int) -> dict[str, Any]:
    for number in range(frames):
        report(f"phase {number}", 0.0)
    return {}


def say(report: Report, data: bytes) -> dict[str, Any]:
    """Bytes of the child's own choice, on the socket to its parent."""
    connection = report._child  # type: ignore[attr-defined]
    connection.send_frame(data)
    time.sleep(60)
    return {}


def unspeakable(_report: Report) -> dict[str, Any]:
    return {"float": 0.5}
