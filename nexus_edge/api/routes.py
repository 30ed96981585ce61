"""The requests of the admin API: one table for server, client and documentation."""

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from nexus_edge.api.models import (
    DeedRequest,
    DeedView,
    Done,
    DrainRequest,
    GrantRequest,
    Jobs,
    JobView,
    LedgerView,
    ModelView,
    Peers,
    Proofs,
    Request,
    RunRequest,
    Snapshot,
    View,
)

JSON: Final = "application/json"
LINES: Final = "application/x-ndjson"
BYTES: Final = "application/octet-stream"

AUDIT_HEADER: Final = "Nexus-Audit"
"""Of an answer to a change: the id under which it is on record."""


@dataclass(frozen=True)
class Route:
    """One request."""

    method: Literal["GET", "POST"]
    path: str
    text: str
    gives: type[View] | None
    """None: bytes."""
    takes: type[Request] | None = None
    stream: bool = False
    """One object a line, for as long as it is read."""
    file: bool = False
    """Takes a file as its body, and its name as `?name=`."""

    @property
    def changes(self) -> bool:
        """Whether it is a change, and audited."""
        return self.method == "POST"

    def at(self, **parts: str) -> str:
        """Its path with the parts filled in."""
        return self.path.format(**parts)


class Routes(Enum):
    """All requests."""

    SNAPSHOT = Route("GET", "/v1/snapshot", "everything at a glance", Snapshot)
    SNAPSHOTS = Route("GET", "/v1/snapshots", "the same, once a second", Snapshot, stream=True)
    JOBS = Route("GET", "/v1/jobs", "all jobs that are kept, newest first", Jobs)
    JOB = Route("GET", "/v1/jobs/{job}", "one job with its timeline", JobView)
    WATCH = Route("GET", "/v1/jobs/{job}/watch", "the same whenever it changes, until the job has ended", JobView, stream=True)
    OUTPUT = Route("GET", "/v1/jobs/{job}/output", "the verified answer, a `.npy` or `.npz` file", None)
    PEERS = Route("GET", "/v1/peers", "all peers", Peers)
    PROOFS = Route("GET", "/v1/proofs", "all proofs that are kept, newest first", Proofs)
    LEDGER = Route("GET", "/v1/ledger", "the books and the newest entries", LedgerView)
    IMPORT = Route(
        "POST", "/v1/models", "bring a model: the body is a `.tflite` file or a program, `?name=` its name", ModelView, file=True
    )
    SUBMIT = Route("POST", "/v1/jobs", "run a model on an input somewhere in the mesh, and prove it", JobView, RunRequest)
    CANCEL = Route("POST", "/v1/jobs/{job}/cancel", "stop a job", JobView)
    GRANT = Route("POST", "/v1/grants", "lend a peer more, or nothing any longer", Done, GrantRequest)
    DEED = Route("POST", "/v1/deeds", "write down what owners settled between themselves", DeedView, DeedRequest)
    DRAIN = Route("POST", "/v1/drain", "take no new work, or take work again", Done, DrainRequest)
    SHUTDOWN = Route("POST", "/v1/shutdown", "stop the agent", Done)


ROUTES: Final[tuple[Route, ...]] = tuple(route.value for route in Routes)
