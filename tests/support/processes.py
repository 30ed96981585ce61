"""Nodes in processes: started, asked, killed, started again."""

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from nexus_edge.identity import NodeKey

ROOT = Path(__file__).parents[2]
START_S = 30.0
SETTLED: Any = {"jobs": [], "debts": []}
"""What a node says that has nothing left to do."""


class Died(Exception):
    """The node's process has ended."""


class Process:
    """One node, over all its lives. Its key and port stay the same."""

    def __init__(self, folder: Path, name: str, **options: Any) -> None:
        self._options = options
        self.seed = name.encode().ljust(32, b".").hex()
        self.id = NodeKey.from_seed(bytes.fromhex(self.seed)).id.hex()
        self.name = name
        self.port = 0
        self.peers: list[Process] = []
        self._folder = folder / name
        self._log = (folder / f"{name}.log").open("ab")
        self._life: _Life | None = None
        self._rest = b""

    def start(self, crash: tuple[str, str, int] | None = None) -> None:
        """Start it, to die at a commit if one is named. Raises `Died` if it does so before it is ready."""
        peers = [("127.0.0.1", peer.port, peer.seed) for peer in self.peers if peer.port]
        given = {"folder": str(self._folder), "seed": self.seed, "port": self.port, "peers": peers, "crash": crash, **self._options}
        self._life = _zygote().fork(given, self._log.fileno())
        self._rest = b""
        self.port = self.answer(START_S)["port"]

    def ask(self, do: str, within_s: float = 90.0, **more: Any) -> Any:
        """Do something and wait for the answer. Raises `Died`."""
        self.tell(do, **more)
        return self.answer(within_s)

    def tell(self, do: str, **more: Any) -> None:
        """Do something; `answer` has what came of it. Raises `Died`."""
        try:
            os.write(self._living.commands, json.dumps({"do": do, **more}).encode() + b"\n")
        except BrokenPipeError:
            raise Died(self.name) from None

    def answer(self, within_s: float) -> Any:
        """The next answer. Raises `Died`, and `TimeoutError`."""
        life = self._living
        deadline = time.monotonic() + within_s
        while b"\n" not in self._rest:
            ready, _, _ = select.select([life.answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"{self.name} does not answer")
            data = os.read(life.answers, 1 << 16)
            if not data:
                self.wait()
                raise Died(self.name)
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def kill(self) -> None:
        """As a loss of power."""
        os.kill(self._living.pid, signal.SIGKILL)
        self.wait()

    def wait(self, within_s: float = 30.0) -> None:
        """Wait for its end."""
        deadline = time.monotonic() + within_s
        while self.is_alive:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name} does not end")
            time.sleep(0.005)
        if self._life is not None:
            os.close(self._life.commands)
            os.close(self._life.answers)
            self._life = None

    def said(self, lines: int = 40) -> str:
        """The last lines of its log."""
        return "\n".join(Path(self._log.name).read_text(errors="replace").splitlines()[-lines:])

    def memory(self) -> int:
        """Its resident KiB; 0 for one that has just ended."""
        try:
            status = Path(f"/proc/{self._living.pid}/status").read_text()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        if self._life is None:
            return False
        try:
            os.kill(self._life.pid, 0)
        except ProcessLookupError:
            return False
        return True

    @property
    def _living(self) -> "_Life":
        if self._life is None:
            raise Died(self.name)
        return self._life

    def close(self) -> None:
        """Stop it for good."""
        if self._life is not None:
            if self.is_alive:
                self.kill()
            else:
                self.wait()
        self._log.close()


@dataclass(frozen=True)
class _Life:
    """One process, and our ends of its pipes."""

    pid: int
    commands: int
    answers: int


class _Zygote:
    """See `tests.support.zygote`."""

    def __init__(self) -> None:
        self._control, its = socket.socketpair()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.zygote", str(its.fileno())],
            pass_fds=[its.fileno()], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        its.close()
        atexit.register(self.close)

    def fork(self, given: dict[str, Any], log: int) -> _Life:
        """A node with pipes to it."""
        commands, answers = os.pipe(), os.pipe()
        socket.send_fds(self._control, [json.dumps(given).encode()], [commands[0], answers[1], log])
        pid = int.from_bytes(self._control.recv(4), "big")
        os.close(commands[0])
        os.close(answers[1])
        return _Life(pid, commands[1], answers[0])

    def close(self) -> None:
        """No more nodes."""
        self._control.close()
        self._process.wait(10)


@cache
def _zygote() -> _Zygote:
    return _Zygote()
