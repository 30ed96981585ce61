"""The main job on one machine: two agents find each other, one works for the other, proves it and is paid; a forged proof is refused.

The agents are processes of their own with nothing in common but the network. What is shown comes from their admin sockets.
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from nexus_edge.api.client import AdminClient
from nexus_edge.api.models import EntryView, JobView, PeerView, RunRequest
from nexus_edge.data import demo_digits, demo_model
from nexus_edge.errors import AgentUnavailable, JobFailed, ProofRejected, VerifierFailed
from nexus_edge.files import read_bounded, write_whole
from nexus_edge.identity import NodeKey, create_node_key, short_id
from nexus_edge.progress import ProgressBars
from nexus_edge.proofs import Model, Proof, commit_model, verify
from nexus_edge.proofs.arrays import format_tensors, parse_tensors
from nexus_edge.proofs.proof import FORMAT as PROOF_FORMAT
from nexus_edge.types import MicroCredits
from nexus_edge.units import NOT_VERIFIED, VERIFIED, show_size, show_time

NAMES: Final = ("alder", "birch")
START_S: Final = 20.0
"""For an agent to answer on its socket: it imports and opens its ledger, a second on a small machine."""
MULTICAST_S: Final = 5.0
"""For the agents to find each other by multicast; then they are told."""
STATIC_S: Final = 10.0
JOB_S: Final = 60.0
STOP_S: Final = 10.0
MAX_PRICE: Final = MicroCredits(100_000)


@dataclass(frozen=True)
class Receipt:
    """What was proved, what it cost, who verified it, and how both sides wrote it down."""

    verified: bool
    model: str
    digest: str
    shown: int
    """The digit in the image."""
    answer: int
    """The digit that the model reads."""
    output: list[int]
    output_sha256: str
    cores: int | None
    """Of the worker, all its devices together."""
    run_ms: float
    prove_ms: float
    verify_ms: float
    proof_bytes: int
    key_bytes: int
    security_bits: float
    mode: str
    """`zk`: the proof shows nothing of the image but the answer."""
    requester: str
    worker: str
    found_by: str
    """`mdns`, or `static` where multicast does not pass."""
    forgery_refused: bool
    forgery_reason: str
    ledgers: dict[str, dict[str, Any]]
    """Of both: number and id of the entry, its amount in micro-credits, and who has signed."""
    took_ms: float

    def data(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lines(self, built_s: int = 0) -> list[str]:
        """For people; `built_s` is how long it took to build this before."""
        ours, theirs = (self.ledgers[name] for name in NAMES)
        cores = "" if self.cores is None else f", on {self.cores} CPU cores"
        building = f", after {built_s} s of building" if built_s > 1 else ""
        how = "by multicast DNS" if self.found_by == "mdns" else "by a static address, without multicast"
        return [
            VERIFIED if self.verified else NOT_VERIFIED,
            "",
            f"model      {self.model}, {self.digest[:8]}, bit for bit as TFLite Micro",
            "input      a handwritten digit, seen by both agents, hidden in the proof",
            f"answer     {self.answer} (the image shows a {self.shown})",
            f"executed   {show_time(self.run_ms)}  by birch {self.worker}{cores}",
            f"proved     {show_time(self.prove_ms)}  by birch: {show_size(self.proof_bytes)}, {self.security_bits:.1f} bits proven, zero-knowledge",
            f"verified   {show_time(self.verify_ms)}  by alder {self.requester}, without running the model",
            f"of re-run  {100 * self.verify_ms / max(self.run_ms, 0.001):.0f} %  this model is tiny: verifying pays for larger ones",
            f"forgery    {'refused' if self.forgery_refused else 'ACCEPTED'}  one bit of the proof changed: {self.forgery_reason}",
            f"found      {how}",
            f"ledgers    alder #{ours['entry']} {_credits(ours['amount_ucr'])} cr, birch #{theirs['entry']} {_credits(theirs['amount_ucr'])} cr: one receipt, both signed",
            f"took       {show_time(self.took_ms)}{building}",
            "next       nexus-edge up: your own agent, on your own network",
        ]


@dataclass
class Node:
    """One of the two agents."""

    name: str
    folder: Path
    key: NodeKey
    mesh: str
    mdns: bool
    process: asyncio.subprocess.Process | None = None

    @property
    def socket(self) -> Path:
        """Its admin socket."""
        return self.folder / "admin.sock"

    async def start(self, peers: str = "") -> None:
        """Start it. Raises `VerifierFailed` if it ends at once."""
        settings = {
            "NODE__STATE": str(self.folder),
            "NODE__NAME": self.name,
            "MESH__NAME": self.mesh,
            "MESH__LISTEN": "0.0.0.0:0",
            "MESH__PEERS": peers,
            "MESH__MDNS": str(self.mdns).lower(),
            "API__SOCKET": str(self.socket),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("NEXUS_EDGE_")}
        environment = kept | {f"NEXUS_EDGE_{name}": value for name, value in settings.items()}
        with (self.folder / "agent.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "nexus_edge", "agent", stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )

    async def stop(self) -> None:
        """End it, as a service manager does."""
        if self.process is None or self.process.returncode is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    @contextlib.asynccontextmanager
    async def admin(self) -> AsyncIterator[AdminClient]:
        """Its admin socket, as soon as it answers."""
        deadline = time.monotonic() + START_S
        while True:
            try:
                async with AdminClient((self.socket,)) as client:
                    yield client
                    return
            except AgentUnavailable:
                if time.monotonic() > deadline or self.process is None or self.process.returncode is not None:
                    raise VerifierFailed(f"{self.name} does not start", self.last_words()) from None
                await asyncio.sleep(0.05)

    def last_words(self) -> str:
        """The end of its log."""
        try:
            return (self.folder / "agent.log").read_text(errors="replace")[-2000:].strip()
        except OSError:
            return "it has no log"


def demonstrate(*, mdns: bool = True) -> Receipt:
    """Have one agent prove a held-out digit for another. Raises `VerifierFailed` and `JobFailed` if that does not come to its end."""
    return asyncio.run(_demonstrate(mdns=mdns))


async def _demonstrate(*, mdns: bool) -> Receipt:
    began = time.monotonic()
    mesh = f"demo-{secrets.token_hex(4)}"
    with ProgressBars() as bars, tempfile.TemporaryDirectory(prefix="nexus-edge-demo-") as folder:
        nodes = []
        for name in NAMES:
            (Path(folder) / name).mkdir(mode=0o700)
            nodes.append(Node(name, Path(folder) / name, create_node_key(Path(folder) / name / "node-key"), mesh, mdns))
        alder, birch = nodes
        print(
            f"two agents     alder {short_id(alder.key.id)} asks, birch {short_id(birch.key.id)} works, both on this machine",
            file=sys.stderr,
        )
        bars("starting", 0.0)
        try:
            await asyncio.gather(*(node.start() for node in nodes))
            found_by = await _meet(alder, birch, bars)
            async with alder.admin() as asks, birch.admin() as works:
                return await _work(alder, birch, asks, works, found_by, bars, began)
        finally:
            await asyncio.gather(*(node.stop() for node in nodes))


async def _meet(alder: Node, birch: Node, bars: ProgressBars) -> str:
    """Wait until alder can dial birch; if multicast does not pass, tell it where."""
    async with alder.admin() as asks, birch.admin() as works:
        bars("looking", 0.0)
        peer = await _peer(asks, birch, MULTICAST_S if alder.mdns else 0.0)
        if peer is not None:
            return "mdns"  # nobody was told anything: at least one of them heard the other
        port = (await works.snapshot()).node.listen.rpartition(":")[2]
    why = "does not pass within 5 s" if alder.mdns else "is off"
    print(f"multicast      {why}: alder is told where birch is", file=sys.stderr)
    await alder.stop()
    await alder.start(f"127.0.0.1:{port}")
    async with alder.admin() as asks:
        if await _peer(asks, birch, STATIC_S) is None:
            raise VerifierFailed(
                "the agents do not find each other", "neither by multicast nor by address", "does a firewall block loopback?"
            )
    return "static"


async def _peer(asks: AdminClient, other: Node, within_s: float) -> PeerView | None:
    """The other agent, once it is up."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        for peer in await asks.peers():
            if peer.short_id == short_id(other.key.id) and peer.state == "up":
                return peer
        await asyncio.sleep(0.05)
    return None


async def _work(
    alder: Node, birch: Node, asks: AdminClient, works: AdminClient, found_by: str, bars: ProgressBars, began: float
) -> Receipt:  # fmt: skip
    image, label = demo_digits()[0]
    file = alder.folder / "digits.tflite"
    write_whole(file, demo_model(), "model")
    model = Model.from_tflite(demo_model(), name="digits")
    with file.open("rb") as content:
        brought = await asks.import_model(content, "digits")
    request = RunRequest(
        model=brought.digest, input=format_tensors(model.inputs, [image]), max_price_ucr=MAX_PRICE, deadline_ms=int(1000 * JOB_S)
    )
    job = await _settled(asks, (await asks.submit(request)).id, bars)
    theirs = await _settled_at_worker(works, job.id)
    (output,) = parse_tensors(await asks.output(job.id), file, model.outputs, "output")
    proof = read_bounded(alder.folder / "blobs" / (job.proof or ""), PROOF_FORMAT.limit, "proof")
    key = commit_model(model).verifying_key
    refused, reason = _forge(key, proof)
    cores = [device.cores for device in (await works.snapshot()).devices if device.cores is not None]
    entries = {alder.name: _entry(await asks.ledger(), job), birch.name: _entry(await works.ledger(), job)}
    return Receipt(
        verified=job.state == "verified" and job.settled and refused,
        model="digits int8, 8x8 image to 10 probabilities",
        digest=job.digest,
        shown=label,
        answer=int(output.argmax()),
        output=[int(value) for value in output.ravel()],
        output_sha256=hashlib.sha256(output.tobytes()).hexdigest(),
        cores=sum(cores) or None,
        run_ms=theirs.run_ms or 0.0,
        prove_ms=theirs.prove_ms or 0.0,
        verify_ms=job.verify_ms or 0.0,
        proof_bytes=len(proof),
        key_bytes=len(key.to_bytes()),
        security_bits=float(key.soundness()["bits"]),
        mode=key.mode,
        requester=short_id(alder.key.id),
        worker=short_id(birch.key.id),
        found_by=found_by,
        forgery_refused=refused,
        forgery_reason=reason,
        ledgers=entries,
        took_ms=1000 * (time.monotonic() - began),
    )


async def _settled(asks: AdminClient, job: str, bars: ProgressBars) -> JobView:
    """The job once it is paid and acknowledged. Raises `JobFailed`."""
    deadline = time.monotonic() + JOB_S
    async for view in asks.watch(job):
        bars(view.phase or view.state, view.fraction or 0.0)
    while True:
        view = await asks.job(job)
        if view.settled:
            return view
        if view.state in ("failed", "refused", "cancelled") or time.monotonic() > deadline:
            raise JobFailed("the job was not done", view.reason or f"it is {view.state}")
        await asyncio.sleep(0.02)


async def _settled_at_worker(works: AdminClient, job: str) -> JobView:
    """The same job as the worker has it."""
    deadline = time.monotonic() + STATIC_S
    while True:
        view = await works.job(job)
        if view.settled:
            return view
        if time.monotonic() > deadline:
            raise JobFailed("the worker was not paid", view.reason or f"its lease is {view.state}")
        await asyncio.sleep(0.02)


def _forge(key: Any, proof: bytes) -> tuple[bool, str]:
    """Whether the true proof is accepted and one with a bit changed is not, and why. A verifier that accepts everything would look the same else."""
    verify(key, Proof.from_bytes(proof))
    forged = bytearray(proof)
    forged[-len(forged) // 3] ^= 1
    try:
        verify(key, Proof.from_bytes(bytes(forged)))
    except ProofRejected as refused:
        return True, refused.why
    return False, "it was accepted"


def _entry(ledger: Any, job: JobView) -> dict[str, Any]:
    """How one side wrote the payment down."""
    found: EntryView | None = next((entry for entry in ledger.entries if entry.kind == "job" and entry.id == job.entry), None)
    if found is None or not ledger.integrity.sound:
        raise JobFailed("the receipt is missing", "one of the ledgers lacks the entry, or is not sound")
    return {"entry": found.n, "id": found.id, "amount_ucr": int(found.amount_ucr), "signed": found.signed}


def _credits(amount: int) -> str:
    """Millionths with four decimals and a sign."""
    size, sign = abs(amount) / 1_000_000, "\N{MINUS SIGN}" if amount < 0 else "+"
    return f"{sign}{size:.4f}" if size >= 0.0001 else f"{sign}<0.0001"
