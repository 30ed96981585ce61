"""Whole agents on hosts of a switch: the program as it is installed, with its own folder, told nothing about anybody else."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from nexus_edge.data import demo_digits, demo_model
from nexus_edge.identity import create_node_key, short_id
from tests.discovery.networks import ROOT

START_S: Final = 60.0
ASKED_S: Final = 120.0
"""For one command, a job included."""
SIGNED_S: Final = 30.0
"""For the second signature on a payment."""
LOOK_S: Final = 1.0
"""Each look is a process of its own."""


@dataclass(frozen=True)
class Agent:
    """An agent in a namespace. Its admin socket is a file, so commands reach it from outside."""

    name: str
    namespace: str
    folder: Path
    short_id: str

    @property
    def environment(self) -> dict[str, str]:
        """Its settings. No peer is named: what it finds, it finds by itself."""
        settings = {
            "NODE__STATE": str(self.folder), "NODE__NAME": self.name, "API__SOCKET": str(self.folder / "admin.sock"), "MESH__LISTEN": "0.0.0.0:0",
        }  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NEXUS_EDGE_")}
        return kept | {f"NEXUS_EDGE_{name}": value for name, value in settings.items()}

    async def ask(self, *words: str) -> Any:
        """What a command answers with `--json`; it must succeed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "nexus_edge", *words, "--json",
            cwd=ROOT, env=self.environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        said, narrated = await asyncio.wait_for(process.communicate(), ASKED_S)
        assert process.returncode == 0, f"{self.name}: {' '.join(words)}: {said.decode()} {narrated.decode()}\n{self.log()}"
        return json.loads(said)

    async def until(self, what: Callable[[list[dict[str, Any]]], bool], within_s: float) -> list[dict[str, Any]]:
        """Its peers, once they are `what`."""
        end = time.monotonic() + within_s
        peers: list[dict[str, Any]]
        while not what(peers := (await self.ask("peers"))["peers"]):
            assert time.monotonic() < end, f"not within {within_s} s: {self.name} has {peers}\n{self.log()}"
            await asyncio.sleep(LOOK_S)
        return peers

    async def run(self, digit: int) -> Any:
        """One job of the bundled model for one of the bundled digits, on whoever does it."""
        model, image = self.folder / "digits.tflite", self.folder / "image.npy"
        model.write_bytes(demo_model())
        np.save(image, demo_digits()[digit][0])
        return await self.ask("run", str(model), str(image), "--max-price", "0.1 cr", "--deadline", "60 s")

    async def until_receipts(self, expected: dict[str, tuple[str, str]]) -> None:
        """Wait until its ledger, which must be sound, has these payments and no others: by entry, `paid` or `earned`, and who has signed."""
        end = time.monotonic() + SIGNED_S
        while (found := await self._receipts()) != expected:
            assert time.monotonic() < end, f"{self.name} has {found}, not {expected}\n{self.log()}"
            await asyncio.sleep(LOOK_S)
        assert (await self.ask("ledger", "verify"))["faults"] == []

    async def _receipts(self) -> dict[str, tuple[str, str]]:
        movements = (await self.ask("ledger", "list"))["movements"]
        return {one["entry"]: (one["kind"], one["signatures"]) for one in movements if one["kind"] in ("paid", "earned")}

    def log(self) -> str:
        """The end of what it logged."""
        return (self.folder / "agent.log").read_text(errors="replace")[-4000:]


@contextlib.asynccontextmanager
async def agent_in(namespace: str, name: str, folder: Path) -> AsyncIterator[Agent]:
    """Start an agent and wait until it answers; at the end it is asked to leave, and must do so without an error."""
    folder.mkdir(mode=0o700)
    agent = Agent(name, namespace, folder, short_id(create_node_key(folder / "node-key").id))
    with (folder / "agent.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", namespace, sys.executable, "-m", "nexus_edge", "agent",
            cwd=ROOT, env=agent.environment, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        end = time.monotonic() + START_S
        while not (folder / "admin.sock").exists():
            assert process.returncode is None, agent.log()
            assert time.monotonic() < end, agent.log()
            await asyncio.sleep(0.1)
        yield agent
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)
        assert process.returncode == 0, agent.log()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
