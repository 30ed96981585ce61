"""Whether a node record may be kept: of our mesh, current, and not older than the one held."""

from nexus_edge.errors import PeerError
from nexus_edge.identity import short_id
from nexus_edge.types import UnixMs
from nexus_edge.wire.limits import RECORD_AHEAD_MS, RECORD_LIFE_MS
from nexus_edge.wire.objects import NodeRecord
from nexus_edge.wire.signing import Signed


class BadRecord(PeerError):
    """A node record that is not kept."""


class OtherMesh(BadRecord):
    """A node record of another mesh."""

    def __init__(self, what: str, theirs: str, ours: str) -> None:
        super().__init__(what, f"it is in the mesh {theirs!r}, this node in {ours!r}", "set mesh.name alike on both")
        self.mesh = theirs


def check_record(signed: Signed[NodeRecord], mesh: str, now: UnixMs, held: Signed[NodeRecord] | None = None) -> None:
    """Raise `BadRecord` unless the record is of this mesh, its times are possible, and `held` is not newer."""
    record = signed.object
    what = f"the record of {short_id(record.iss)} is not kept"
    if record.mesh != mesh:
        raise OtherMesh(what, record.mesh, mesh)
    if record.at > now + RECORD_AHEAD_MS:
        raise BadRecord(what, f"it was signed {(record.at - now) // 1000} s in the future", "its clock or ours is wrong")
    if not record.at < record.exp <= record.at + RECORD_LIFE_MS:
        raise BadRecord(what, f"it expires {(record.exp - record.at) // 1000} s after it was signed; a record lives a day at most")
    if record.exp + RECORD_AHEAD_MS < now:
        raise BadRecord(what, f"it expired {(now - record.exp) // 1000} s ago", "its clock or ours is wrong")
    if held is not None and record.seq < held.object.seq:
        raise BadRecord(what, "a newer one is held")
