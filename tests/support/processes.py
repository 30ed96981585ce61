"""Nodes in processes: started, asked, killed, started again."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from nexus_edge.identity import NodeKey

ROOT = Path(__file__).parents[2]
START_S = 30.0


class Died(Exception):
    """The node's process has ended."""


class Process:
    """One node, over all its lives. Its key and port stay the same."""

    def __init__(self, folder: Path, name: str) -> None:
        self.seed = name.encode().ljust(32, b".").hex()
        self.id = NodeKey.from_seed(bytes.fromhex(self.seed)).id.hex()
        self.name = name
        self.port = 0
        self.peers: list[Process] = []
        self._folder = folder / name
        self._log = (folder / f"{name}.log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, crash: tuple[str, str, int] | None = None) -> None:
        """Start it, to die at a commit if one is named. Raises `Died` if it does so before it is ready."""
        peers = [("127.0.0.1", peer.port, peer.seed) for peer in self.peers if peer.port]
        given = {"folder": str(self._folder), "seed": self.seed, "port": self.port, "peers": peers, "crash": crash}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.node", json.dumps(given)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, bufsize=0,
        )  # fmt: skip
        self._rest = b""
        self.port = self.answer(START_S)["port"]

    def ask(self, do: str, within_s: float = 90.0, **more: Any) -> Any:
        """Do something and wait for the answer. Raises `Died`."""
        self.tell(do, **more)
        return self.answer(within_s)

    def tell(self, do: str, **more: Any) -> None:
        """Do something; `answer` has what came of it. Raises `Died`."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        except BrokenPipeError:
            raise Died(self.name) from None

    def answer(self, within_s: float) -> Any:
        """The next answer. Raises `Died`, and `TimeoutError`."""
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + within_s
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"{self.name} does not answer")
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                self.wait()
                raise Died(self.name)
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def kill(self) -> None:
        """As a loss of power."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self.wait()

    def wait(self, within_s: float = 30.0) -> int:
        """Wait for its end."""
        assert self._process is not None
        status = self._process.wait(within_s)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        return status

    def memory(self) -> int:
        """Its resident KiB; 0 for one that has just ended."""
        assert self._process is not None
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")), 0)

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def close(self) -> None:
        """Stop it for good."""
        if self.is_alive:
            self.kill()
        self._log.close()
