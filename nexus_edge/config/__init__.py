"""Settings: what they are, where each value comes from, and where files are.

Files, then the environment, then the command line; later ones win. docs/settings.md lists every setting and is made from `Settings`.
"""

from nexus_edge.config.loading import Loaded, configuration_files, load
from nexus_edge.config.paths import Paths
from nexus_edge.config.settings import (
    Api,
    Compute,
    Credit,
    Fleet,
    LedgerSettings,
    ListenAddress,
    Log,
    Market,
    Mesh,
    Node,
    PeerAddress,
    ServedGroup,
    Settings,
    Spend,
)
from nexus_edge.config.sources import Origin

__all__ = [
    "Api",
    "Compute",
    "Credit",
    "Fleet",
    "LedgerSettings",
    "ListenAddress",
    "Loaded",
    "Log",
    "Market",
    "Mesh",
    "Node",
    "Origin",
    "Paths",
    "PeerAddress",
    "ServedGroup",
    "Settings",
    "Spend",
    "configuration_files",
    "load",
]
