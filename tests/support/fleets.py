"""An owner's key, and certificates of its fleet."""

from pathlib import Path
from typing import Any

from nexus_edge.clock import now_ms
from nexus_edge.identity import NodeKey
from nexus_edge.ledger import CreditPolicy, Group
from nexus_edge.types import MicroCredits, NodeId, UnixMs
from nexus_edge.wire.certificates import write_certificate
from nexus_edge.wire.objects import GroupCertificate
from nexus_edge.wire.signing import Signed, sign

OWNER = NodeKey.from_seed(b"owner".ljust(32, b"."))
RIVAL = NodeKey.from_seed(b"rival".ljust(32, b"."))
DAY_MS = 86_400_000


def certificate(node: NodeId, *, owner: NodeKey = OWNER, days: int = 30, ago_ms: int = 0, **changes: Any) -> Signed[GroupCertificate]:
    """As an owner signs it, or as nobody should."""
    at = UnixMs(now_ms() - ago_ms)
    fields: dict[str, Any] = {"iss": owner.id, "at": at, "node": node, "exp": UnixMs(at + days * DAY_MS), "seq": at, **changes}
    return sign(owner, GroupCertificate(**fields))


def certificate_file(folder: Path, node: NodeId, **more: Any) -> Path:
    """The same in a file."""
    path = folder / "member.cert"
    path.write_bytes(write_certificate(certificate(node, **more)))
    return path


def serving(line: int | None = None, *, bucket: int = 0, cap: int = 0, keys: tuple[NodeKey, ...] = (OWNER,)) -> CreditPolicy:
    """A policy that lends newcomers so much, and each fleet so much."""
    bound = None if line is None else MicroCredits(line)
    limits = (MicroCredits(bucket), MicroCredits(bucket), MicroCredits(cap))
    return CreditPolicy(*limits, groups=tuple(Group(key.id, line=bound) for key in keys))
