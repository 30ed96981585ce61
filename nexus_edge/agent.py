"""The composition root: the only place that wires the parts of a node together, and the order in which they start and stop."""

import asyncio
import contextlib
import errno
import importlib.metadata
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import structlog

from nexus_edge.api.admin import AdminServer
from nexus_edge.api.administration import Administration, Node
from nexus_edge.clock import SUSPENDED_S, asleep_s
from nexus_edge.compute import Child, Device, Load, ModelLibrary, ModelStore, Pool, devices, memory_available
from nexus_edge.config import Settings
from nexus_edge.discovery import Endpoint, Mdns, PeerDirectory, Prober, Source, State
from nexus_edge.discovery.interfaces import interfaces
from nexus_edge.errors import ConfigError, LedgerError
from nexus_edge.identity import NodeKey, load_node_key, parse_node_id, short_id
from nexus_edge.ledger import BlobStore, CreditPolicy, Ledger
from nexus_edge.ledger.database import CommitHook
from nexus_edge.ledger.policy import credit_policy
from nexus_edge.market import leases
from nexus_edge.market.admission import Demand
from nexus_edge.market.buying import Buyer, Reachable
from nexus_edge.market.fleet import Fleet
from nexus_edge.market.keeping import sweep
from nexus_edge.market.membership import Membership
from nexus_edge.market.placement import TIME_VALUE
from nexus_edge.market.presence import Presence, Self
from nexus_edge.market.quoting import Offer
from nexus_edge.market.requester import Requester
from nexus_edge.market.running import Runner
from nexus_edge.market.serving import Serving
from nexus_edge.market.settling import Till
from nexus_edge.market.worker import Worker
from nexus_edge.market.workshop import Workshop
from nexus_edge.transport import Answering, Caller, PeerClient, PeerConnection, PeerServer
from nexus_edge.types import Bytes, Digest, MicroCredits, NodeId
from nexus_edge.wire.addresses import is_private, join_address
from nexus_edge.wire.limits import QUEUED_JOBS, QUEUED_MS
from nexus_edge.wire.objects import DeviceClaim, ExecutorClaim, Mode, ModelClaim

MODELS_LIMIT: Final = Bytes(8 << 30)
NO_LIMIT: Final = Bytes(0)
KEYS_LIMIT: Final = Bytes(256 << 20)
AGAIN_S: Final = 5.0
"""Before a part of the agent that failed starts again."""
UPKEEP_S: Final = 5.0
SWEEP_S: Final = 3600.0
MEMORY_S: Final = 0.1
"""What was available so lately still holds: what was promised meanwhile is counted by itself, and to ask takes a dozen files."""
MAX_PRICE: Final = MicroCredits(1_000_000)
SEMANTICS: Final = ("tflm", "tflite-2.14", "litert-2.3-ref")

log = structlog.get_logger("agent")


@dataclass(frozen=True)
class Options:
    """What a node is told."""

    state: Path
    """Models and answers, and the ledger unless that is elsewhere."""
    ledger: Path | None = None
    socket: Path | None = None
    """The admin socket; None for none."""
    socket_group: str | None = None
    name: str = ""
    mesh: str = "home"
    host: str = ""
    """Where the mesh port listens; empty is every address."""
    port: int = 0
    peers: tuple[tuple[str, int, NodeId | None], ...] = ()
    """Named by the owner: host, port, and the id if it is known."""
    advertise: tuple[tuple[str, int], ...] = ()
    """What to tell peers instead of this machine's addresses."""
    mdns: bool = True
    rate: int = 1000
    """Micro-credits a core-second."""
    credit: CreditPolicy = field(default_factory=CreditPolicy)
    certificates: tuple[Path, ...] = ()
    """Files that say to which fleets this node belongs."""
    max_price: MicroCredits = MAX_PRICE
    """Of an own job that does not say."""
    deadline_ms: int = 300_000
    """Likewise."""
    time_value: int = TIME_VALUE
    """What a second of waiting is worth, in micro-credits."""
    queue_jobs: int = QUEUED_JOBS
    queue_ms: int = QUEUED_MS
    slots: int = 0
    """Jobs of peers worked on at once; 0: one a child."""
    children: int = 0
    """Processes that run and prove; 0: one a device."""
    threads: int = 0
    """Of each; 0: its share of the cores."""
    memory: Bytes = NO_LIMIT
    """That all jobs together may take; 0: what the machine can spare."""
    serve: bool = True
    """Whether peers get work done here."""
    models_limit: Bytes = MODELS_LIMIT
    keys_limit: Bytes = KEYS_LIMIT
    job_deadline_s: float = 600.0
    """No job takes longer in a child: one that does has lost its way."""

    @classmethod
    def of(cls, settings: Settings) -> "Options":
        """What the settings say. Raises `ConfigError` and `IdentityError`."""
        paths = settings.paths
        mesh = settings.mesh
        return cls(
            state=paths.state,
            ledger=paths.ledger,
            socket=paths.socket,
            socket_group=settings.api.group,
            name=settings.node.name,
            mesh=mesh.name,
            host=mesh.listen.host,
            port=mesh.listen.port,
            advertise=tuple((address.host, address.port) for address in mesh.advertise),
            peers=tuple((peer.host, peer.port, None if peer.id is None else parse_node_id(peer.id)) for peer in mesh.peers),
            mdns=mesh.mdns,
            rate=settings.market.rate,
            credit=credit_policy(settings),
            certificates=settings.fleet.certificates,
            max_price=settings.market.max_price,
            deadline_ms=settings.market.deadline,
            time_value=settings.market.value_of_time,
            queue_jobs=settings.market.queue_jobs,
            queue_ms=settings.market.queue_time,
            slots=settings.market.slots,
            children=settings.compute.children,
            threads=settings.compute.threads,
            memory=settings.compute.memory,
            serve=settings.market.serve,
            models_limit=settings.compute.models,
            keys_limit=settings.compute.keys,
        )


class Agent:
    """One node. `start`, then `close`; in between it serves."""

    def __init__(self, key: NodeKey, options: Options, hook: CommitHook | None = None) -> None:
        self.key = key
        self.options = options
        self._hook = hook
        self._memory = (-MEMORY_S, Bytes(0))
        self._stack = contextlib.AsyncExitStack()
        self.version = importlib.metadata.version("nexus-edge")
        self.stopping = asyncio.Event()
        """Set when an administrator wants it to stop."""

    async def start(self) -> None:
        """Open what is kept, listen, and go on with what was open. Raises what the parts raise; then nothing is left running."""
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        log.info("serving", node=short_id(self.key.id), port=self.server.port)

    async def close(self) -> None:
        """Stop, the other way round. What is open goes on after the next start."""
        await self._stack.aclose()
        log.info("stopped", node=short_id(self.key.id))

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        state = self.options.state
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.ledger = await Ledger.open(self.options.ledger or state / "ledger", self.key, self.options.credit, hook=self._hook)
        stack.push_async_callback(self.ledger.close)
        self.blobs = BlobStore(state / "blobs", age_s=lambda: self.ledger.age() / 1000)
        self.pool = await stack.enter_async_context(
            Pool(
                shared(devices(), self.options.children),
                child=lambda device: Child(device.id, threads=self.options.threads or device.cores),
            )
        )
        self.load = Load()
        self._run(stack, "load", self.load.run)
        self.slots = min(self.options.slots or self.pool.slots, self.pool.slots)
        store = await asyncio.to_thread(ModelStore, state / "models", self.options.models_limit)
        self.library = ModelLibrary(state / "library", store, self.pool, keys_limit=self.options.keys_limit)
        await self.library.open()
        self.workshop = Workshop(self.library, self.slots, self.options.job_deadline_s)

        self.client = await stack.enter_async_context(PeerClient(self.key))
        self.probing = await stack.enter_async_context(PeerClient(self.key))
        self.directory = PeerDirectory(self.key.id, self.options.mesh)
        for host, port, node in self.options.peers:
            self.directory.add_hint(Source.STATIC, host, port, node)

        self.worker = Worker(self.key, self.ledger, self.blobs, self.workshop, self.offer, lambda: self.requester.jobs)
        self.worker.letting.draining = not self.options.serve
        till = Till(self.ledger, self.worker.leases)
        buyer = Buyer(self, self.workshop, self.options.time_value)
        self.requester = Requester(self.key, self.ledger, self.blobs, self.workshop, self, buyer, till)
        await self.worker.book.load()
        self._run(stack, "runner", Runner(self.worker.book, self.workshop).run)
        self.presence = Presence(self.key, self.directory, self.describe)
        self.fleet = Fleet(self.ledger, Membership(self.key.id, self.options.certificates), self)
        await self.fleet.load()
        serving = Serving(self.worker, till, self.fleet, self.presence, self.workshop, self._is_excluded)
        self.server = PeerServer(self.key, Answering(serving, self.probing, self._reached, self.directory.reaches))
        try:
            await self.server.start(self.options.host, self.options.port)
        except OSError as failed:
            place = join_address(self.options.host or "::", self.options.port)
            taken = failed.errno == errno.EADDRINUSE
            hint = "stop what listens there, or name another address" if taken else "name an address of this machine"
            why = f"{place}: {'another program listens there' if taken else failed.strerror or failed}"
            raise ConfigError("the node cannot listen (mesh.listen)", why, f"{hint} with --listen") from failed
        stack.push_async_callback(self.server.close)

        self._run(stack, "prober", Prober(self.directory, self.probing, self.server.port).run)
        self.mdns: Mdns | None = None
        if self.options.mdns:
            self.mdns = Mdns(self.directory, self.server.port, host=self.options.host)
            self._run(stack, "mdns", self.mdns.run)
        self._run(stack, "fleet", lambda: self.fleet.run(self.directory.watch()))
        self._run(stack, "payments", self._wake_payments)
        self._run(stack, "upkeep", self._upkeep)
        await self.requester.load()
        stack.push_async_callback(self.requester.close)
        self.administration = Administration(
            Node(
                self.key, self.options.name, self.options.mesh, self.version, join_address(self.options.host or "::", self.server.port),
                self.options.max_price, self.options.deadline_ms,
            ),
            self.ledger, self.directory, self.requester, self.worker, self.library, self.workshop, self.pool, self.load,
            self.fleet.membership, self.stopping.set,
        )  # fmt: skip
        if self.options.socket is not None:
            await stack.enter_async_context(AdminServer(self.administration, self.options.socket, self.options.socket_group))

    def _run(self, stack: contextlib.AsyncExitStack, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """A task that lives as long as the agent."""
        task = asyncio.create_task(_kept_up(name, work), name=name)

        async def stop() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        stack.push_async_callback(stop)

    async def _wake_payments(self) -> None:
        """Who comes back is paid at once."""
        with self.directory.watch() as changes:
            async for changed in changes:
                for creditor in await self.ledger.read(lambda reader: reader.debts()):
                    peer = self.directory.get(creditor)
                    if creditor in changed and peer is not None and peer.state is State.UP:
                        self.requester.payer.wake(creditor)

    async def _upkeep(self) -> None:
        """What the clock asks for: to look for peers again after a suspend, to delete what is old, and write-offs."""
        asleep, swept = asleep_s(), 0.0
        while True:
            try:
                if time.monotonic() - swept > SWEEP_S or not swept:
                    swept = time.monotonic()
                    await self._sweep()
                await asyncio.sleep(UPKEEP_S)
                now_asleep = asleep_s()
                if now_asleep - asleep > SUSPENDED_S:
                    log.info("the machine was suspended", seconds=round(now_asleep - asleep))
                    self.directory.stir()
                asleep = now_asleep
                for peer, amount in (await self.ledger.transact("write-off", lambda transaction: transaction.write_off_overflow())).items():
                    log.warning("written off: the owner's gift", peer=short_id(peer), amount=amount)
            except (LedgerError, OSError) as failed:  # a full disk is no reason never to look again
                log.error("upkeep is put off", reason=str(failed))
                await asyncio.sleep(UPKEEP_S)

    async def _sweep(self) -> None:
        await sweep(self.blobs, self.requester.jobs.aged(), self.worker.leases.aged())
        await self.requester.forget()
        await self.worker.book.forget()
        await self.ledger.transact("age", lambda transaction: transaction.keep_age())

    # What the market asks of the other parts

    def up(self) -> Sequence[Reachable]:
        """Peers that answer: those with experience and those of our fleets first, then the near ones."""
        found = []
        for peer in self.directory.up():
            connection = self.connection(peer.id)
            if connection is not None:
                near = peer.is_static or any(is_private(address.endpoint.host) for address in peer.addresses)
                found.append(Reachable(peer.id, connection, round(peer.rtt_ms or 0), near))
        experience = self.requester.workers.experience
        return sorted(found, key=lambda one: (one.id not in experience and not self.fleet.trusts(one.id), not one.near, one.rtt_ms))

    def elsewhere(self) -> Mapping[NodeId, str]:
        """Peers that say they are of another mesh, with its name."""
        return {peer.id: peer.elsewhere for peer in self.directory.snapshot() if peer.elsewhere is not None}

    def connection(self, peer: NodeId) -> PeerConnection | None:
        """A peer at the address where it answered last."""
        row = self.directory.get(peer)
        if row is None or not row.addresses:
            return None
        place = row.addresses[0].endpoint
        return self.client.at(peer, place.host, place.port)

    def others_answer(self, besides: NodeId) -> bool:
        """Whether another peer answers, or there is no other to tell by."""
        others = [peer for peer in self.directory.snapshot() if peer.id != besides]
        return not others or any(peer.state is State.UP for peer in others)

    def _reached(self, caller: Caller, port: int) -> None:
        self.directory.report_caller(caller.peer, Endpoint(caller.address, port))

    def offer(self) -> Offer:
        """The owner's terms and the machine as it stands."""
        waiting: list[Demand] = []
        running: list[Demand] = []
        for lease_id, work in self.worker.book.work.items():
            lease = self.worker.leases[lease_id]
            if not lease.state.is_open:
                continue
            forecast = self.workshop.demand(lease.model)
            is_running = lease.state is leases.State.QUEUED and bool(work.phase)
            (running if is_running else waiting).append(forecast)
        if time.monotonic() > self._memory[0] + MEMORY_S:
            self._memory = time.monotonic(), memory_available()
        available = self._memory[1]
        return Offer(
            rate=self.options.rate,
            slots=self.slots,
            waiting=tuple(waiting),
            running=tuple(running),
            available=min(available, self.options.memory) if self.options.memory else available,
            learned_permille=self.library.learned_permille,
            queue_jobs=self.options.queue_jobs,
            queue_ms=self.options.queue_ms,
        )

    def describe(self) -> Self:
        """What there is to say of this node."""
        claims = []
        for record in self.library.records()[:256]:
            takes = self.library.forecast(record.model)
            claims.append(
                ModelClaim(
                    Digest(record.model), 1 << Mode.PROVED.value, _ms(takes.run_us), _ms(takes.prove_us), takes.memory, takes.proof_bytes
                )
            )  # fmt: skip
        return Self(
            name=self.options.name,
            mesh=self.options.mesh,
            software=f"nexus-edge/{self.version}",
            addresses=self._addresses(),
            devices=tuple(DeviceClaim("cpu", device.name[:64], device.memory, device.cores) for device in self.pool.devices),
            executors=(ExecutorClaim("native", SEMANTICS),),
            models=tuple(claims),
            rate=self.options.rate,
            slots=self.slots,
        )

    def _addresses(self) -> tuple[str, ...]:
        """Where peers may dial us: what we listen at, or every address of this machine that means something elsewhere."""
        if self.options.advertise:
            return tuple(join_address(host, port) for host, port in self.options.advertise)
        if self.options.host not in ("", "0.0.0.0", "::"):
            return (join_address(self.options.host, self.server.port),)
        found = sorted(one.address for one in interfaces() if one.is_running and not one.is_loopback and not one.is_link_local)
        usable = [address for address in found if self.options.host != "0.0.0.0" or ":" not in address]
        return tuple(join_address(address, self.server.port) for address in usable[:8])

    async def _is_excluded(self, peer: NodeId) -> bool:
        return self.requester.workers.excludes(peer)


async def serve(settings: Settings, *, ready: Callable[[Agent], None] | None = None, hook: CommitHook | None = None) -> None:
    """Run a node until it is told to stop: by an administrator, SIGTERM or SIGINT. Raises what starting it raises."""
    agent = Agent(load_node_key(settings.paths.key), Options.of(settings), hook)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, agent.stopping.set)
    await agent.start()
    try:
        if ready is not None:
            ready(agent)
        await agent.stopping.wait()
    finally:
        await agent.close()


def shared(found: Sequence[Device], children: int) -> list[Device]:
    """Devices for so many children, each with its share of the cores; one child for each device if 0."""
    if not children:
        return list(found)
    places = [found[number % len(found)] for number in range(children)]
    return [
        replace(device, id=f"{device.id}.{number}", cores=max(1, device.cores // places.count(device))) for number, device in enumerate(places)
    ]  # fmt: skip


async def _kept_up(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """A part of the agent that fails is a bug: it is logged, and the part starts again, as the agent does more than that."""
    while True:
        try:
            await work()
        except Exception:
            log.critical("a part of the agent has failed and starts again", part=name, again_s=AGAIN_S, exc_info=True)
        await asyncio.sleep(AGAIN_S)


def _ms(us: int) -> int:
    return -(-us // 1000)
