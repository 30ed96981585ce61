"""Every setting, with its type, default and meaning: the one place that knows them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from nexus_edge.config.addresses import Listen, ListenAddress, Peer, PeerAddress, listed
from nexus_edge.config.groups import Groups, ServedGroup
from nexus_edge.config.names import checked_name
from nexus_edge.config.paths import Paths, absolute
from nexus_edge.config.quantities import CREDITS, Credits, Duration, Size
from nexus_edge.types import Bytes, MicroCredits

__all__ = [
    "Api", "Compute", "Credit", "Fleet", "LedgerSettings", "ListenAddress", "Log", "Market", "Mesh", "Node", "PeerAddress", "ServedGroup", "Settings", "Spend",
]  # fmt: skip

CREDIT = CREDITS["cr"]
MIB = 1 << 20
GIB = 1 << 30

GROUPS = 16
"""Fleets that one node serves: each may have a thousand members, who are rows here."""
CERTIFICATES = 8
"""Fleets that one node belongs to: `nexus_edge.wire.limits.CERTIFICATES`."""

Name = Annotated[str, AfterValidator(checked_name)]
Folder = Annotated[Path, AfterValidator(absolute)]


class Section(BaseModel):
    """Some settings that belong together."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Node(Section):
    """Who this node is."""

    name: Name = Field(default="", description="what this node calls itself; peers see it. Empty: its id stands alone")
    state: Folder | None = Field(
        default=None, description="folder of key, ledger and models (default: $STATE_DIRECTORY, else nexus-edge in the user's state folder)"
    )
    key: Folder | None = Field(
        default=None, description="file of the node key (default: node-key in the state folder; a credential `node-key` comes first)"
    )


class Mesh(Section):
    """Which peers it meets, and how."""

    listen: Listen = Field(
        default=ListenAddress("0.0.0.0", 7411), description="where peers reach this node; `[::]:7411` also takes IPv6. Port 0: any"
    )
    name: Name = Field(default="home", description="only nodes of one mesh name work with each other")
    peers: Annotated[tuple[Peer, ...], BeforeValidator(listed)] = Field(
        default=(), description="peers to dial, host:port or id@host:port", max_length=256
    )
    mdns: bool = Field(default=True, description="find neighbours on the local network, and be found")
    advertise: Annotated[tuple[Listen, ...], BeforeValidator(listed)] = Field(
        default=(), description="addresses to tell peers, where they differ from what this machine sees (NAT, names)", max_length=8
    )


class Market(Section):
    """What work costs here, and what it may cost elsewhere."""

    serve: bool = Field(default=True, description="work for peers")
    rate: Credits = Field(default=MicroCredits(1000), description="price of a core-second when nothing waits")
    slots: int = Field(default=0, ge=0, le=64, description="jobs of peers worked on at once. 0: one a device")
    queue_jobs: int = Field(default=64, ge=1, le=64, description="jobs of peers that may wait")
    queue_time: Duration = Field(default=300_000, le=300_000, description="work that may wait: peers are refused beyond it")
    max_price: Credits = Field(default=MicroCredits(CREDIT), description="what an own job may cost unless it says otherwise")
    value_of_time: Credits = Field(default=MicroCredits(2000), description="what a second earlier is worth when a worker is chosen")
    deadline: Duration = Field(default=300_000, description="how long an own job may take unless it says otherwise")


class Spend(Section):
    """What this node may spend, so that a script cannot indebt its owner."""

    open: Credits = Field(default=MicroCredits(10 * CREDIT), description="promised and unpaid at one time")
    day: Credits = Field(default=MicroCredits(5 * CREDIT), description="in 24 hours")


class Credit(Section):
    """What this node lends to peers that it knows nothing of. Nothing is given per identity."""

    private_bucket: Credits = Field(default=MicroCredits(5 * CREDIT), description="to all newcomers on private networks together")
    public_bucket: Credits = Field(default=MicroCredits(CREDIT // 2), description="to all other newcomers together")
    cap: Credits = Field(default=MicroCredits(50 * CREDIT), description="to everyone together, but to members of fleets")


class Fleet(Section):
    """Nodes of one owner, who work for each other without limits of credit: those that a key of the owner's names in group certificates."""

    groups: Annotated[Groups, BeforeValidator(listed)] = Field(
        default=(),
        max_length=GROUPS,
        description="fleets that this node serves as its own: `ID` of the key, `NAME=ID`, and with `:AMOUNT` behind it what all members may owe together (default: no bound). The first that names a peer counts",
    )
    certificates: Annotated[tuple[Folder, ...], BeforeValidator(listed)] = Field(
        default=(),
        max_length=CERTIFICATES,
        description="files of the certificates that name this node; one that is renewed is read again within 30 s",
    )


class Compute(Section):
    """What of this machine works for the mesh."""

    threads: int = Field(default=0, ge=0, le=1024, description="threads of one job. 0: one for each core of its device")
    children: int = Field(default=0, ge=0, le=64, description="processes that run and prove. 0: one a device")
    memory: Size = Field(default=Bytes(0), description="memory that all jobs together may take. 0: what the machine can spare")
    models: Size = Field(default=Bytes(20 * GIB), description="disk space for models; those not used for longest go first")
    keys: Size = Field(
        default=Bytes(256 * MIB),
        description="disk space for commitments to models' weights; those not used for longest are made anew when they are needed",
    )


class LedgerSettings(Section):
    """The books."""

    path: Folder | None = Field(default=None, description="folder of the ledger (default: ledger in the state folder)")


class Api(Section):
    """How programs on this machine talk to the agent."""

    socket: Folder | None = Field(
        default=None,
        description="the admin socket (default: admin.sock in $RUNTIME_DIRECTORY, else in the state folder if that is set, else in the user's runtime folder)",
    )
    group: str | None = Field(
        default=None, max_length=64, description="group whose members may administer the agent too; without it only its own user may"
    )


class Log(Section):
    """What the agent says about what it does."""

    level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="the least important records that are written")
    format: Literal["auto", "console", "json"] = Field(default="auto", description="auto: for people on a terminal, JSON else")


class Settings(BaseSettings):
    """All settings. `nexus_edge.config.load` reads them from their sources; constructed directly it takes only what it is given."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    node: Node = Node()
    mesh: Mesh = Mesh()
    market: Market = Market()
    spend: Spend = Spend()
    credit: Credit = Credit()
    fleet: Fleet = Fleet()
    compute: Compute = Compute()
    ledger: LedgerSettings = LedgerSettings()
    api: Api = Api()
    log: Log = Log()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Nothing is read behind one's back."""
        return (init_settings,)

    @property
    def paths(self) -> Paths:
        """Where everything is. Raises `ConfigError` if there is no place for it."""
        return Paths.choose(state=self.node.state, key=self.node.key, ledger=self.ledger.path, socket=self.api.socket)
