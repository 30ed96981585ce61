"""Where files are: a service's own folders first, then the user's (XDG base directories)."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nexus_edge.errors import ConfigError

PRODUCT: Final = "nexus-edge"
SOCKET: Final = "admin.sock"
SYSTEM_SOCKET: Final = Path("/run") / PRODUCT / SOCKET
"""Where the system's service has its socket."""


@dataclass(frozen=True)
class Paths:
    """Files and folders of one node."""

    state: Path
    key: Path
    ledger: Path
    socket: Path
    socket_chosen: bool
    """Whether a setting names the socket, or the folder it is in."""

    @property
    def blobs(self) -> Path:
        """Inputs, outputs and proofs."""
        return self.state / "blobs"

    @property
    def models(self) -> Path:
        """The model store."""
        return self.state / "models"

    @property
    def sockets(self) -> tuple[Path, ...]:
        """Where an agent may answer: the chosen place only, or the user's own and then the system's service."""
        return (self.socket,) if self.socket_chosen else (self.socket, SYSTEM_SOCKET)

    @classmethod
    def choose(cls, *, state: Path | None, key: Path | None, ledger: Path | None, socket: Path | None) -> "Paths":
        """What the settings say, and the defaults for the rest. Raises `ConfigError`."""
        folder = state or state_folder()
        return cls(
            state=folder,
            key=key or folder / "node-key",
            ledger=ledger or folder / "ledger",
            socket=socket or _socket(state),
            socket_chosen=socket is not None or state is not None,
        )


def absolute(path: Path) -> Path:
    """A path that means the same from every working directory. Raises `ValueError`."""
    try:
        path = path.expanduser()
    except RuntimeError as homeless:
        raise ValueError(f"{str(path)!r} cannot be resolved: {homeless}") from None
    if not path.is_absolute():
        raise ValueError(f"{str(path)!r} is not absolute")
    return path


def state_folder() -> Path:
    """Of this node: what must not be lost."""
    return service_folder("STATE_DIRECTORY") or _user_folder("XDG_STATE_HOME", ".local/state") / PRODUCT


def user_config() -> Path | None:
    """The user's settings; None for a user without a home."""
    try:
        return _user_folder("XDG_CONFIG_HOME", ".config") / PRODUCT / "config.toml"
    except ConfigError:
        return None


def system_config() -> Path:
    """The machine's settings."""
    return (service_folder("CONFIGURATION_DIRECTORY") or Path("/etc") / PRODUCT) / "config.toml"


def service_folder(variable: str) -> Path | None:
    """A folder that the service manager made; the first one if it made several."""
    first = os.environ.get(variable, "").partition(":")[0]
    return Path(first) if first else None


def shown(path: Path) -> str:
    """A path for people."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(path)


def _socket(state: Path | None) -> Path:
    runtime = service_folder("RUNTIME_DIRECTORY")
    if runtime is not None:
        return runtime / SOCKET
    if state is not None:
        return state / SOCKET
    user = Path(os.environ.get("XDG_RUNTIME_DIR", ""))
    return (user / PRODUCT if user.is_absolute() else state_folder()) / SOCKET


def _user_folder(variable: str, below_home: str) -> Path:
    chosen = Path(os.environ.get(variable, ""))
    if chosen.is_absolute():
        return chosen
    try:
        return Path.home() / below_home
    except RuntimeError as homeless:
        raise ConfigError("there is no place for this node's files", str(homeless), f"set {variable}, or node.state") from None
