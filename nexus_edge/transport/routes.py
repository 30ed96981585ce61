"""Every request that a node answers: path, bodies, how large and how long. The table also makes docs/mesh-protocol.md."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from nexus_edge.wire.limits import (
    CHUNK,
    CHUNKS,
    ENTRIES_PER_POST,
    INPUT,
    INPUT_WITH_LEASE,
    KIB,
    LONG_POLL_MS,
    MIB,
    OUTPUT,
    SMALL_ANSWER,
    UPLOAD_BYTES_PER_S,
)
from nexus_edge.wire.messages import (
    AccountAnswer,
    AccountQuery,
    DialbackAnswer,
    DialbackRequest,
    Empty,
    EntriesAnswer,
    EntriesPost,
    GroupPost,
    GroupsAnswer,
    InputUpload,
    LeaseOffer,
    LeaseStatus,
    ObjectPart,
    PartQuery,
    PeersAnswer,
    PeersRequest,
    PingAnswer,
    PingRequest,
    PollQuery,
    QuoteRequest,
    ResultAnswer,
    RevealAnswer,
    RevealRequest,
    Upload,
    UploadAnswer,
)
from nexus_edge.wire.objects import Accept, Caps, Entry, NodeRecord, Quote

SMALL: Final = 16 * KIB
"""For bodies of a few fields."""
ENVELOPE: Final = 64 * KIB
"""What a body may have beyond its data."""
ANSWER_S: Final = 5.0
"""For requests that touch memory and at most one transaction."""
MODEL_S: Final = 60.0
"""For an upload's last chunk, after which the model is checked."""


@dataclass(frozen=True)
class Route:
    """One request. `body`, `query` and `answer` are message types, or a signed object's."""

    name: str
    method: str
    path: str
    answer: type | None
    body: type | None = None
    query: type | None = None
    request_limit: int = 0
    answer_limit: int = SMALL
    deadline_s: float = ANSWER_S

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """`{h}` stands for a digest in hexadecimal."""
        return re.compile(self.path.replace("{h}", "(?P<h>[0-9a-f]{64})"))


def _transfer_s(size: int) -> float:
    """As long as the slowest line that is served may take."""
    return ANSWER_S + size / UPLOAD_BYTES_PER_S


ROUTES: Final = (
    Route("node", "GET", "/1/node", NodeRecord),
    Route("caps", "GET", "/1/caps", Caps, answer_limit=Caps.limit),
    Route("peers", "POST", "/1/peers", PeersAnswer, PeersRequest, request_limit=SMALL, answer_limit=ENVELOPE),
    Route("ping", "POST", "/1/ping", PingAnswer, PingRequest, request_limit=SMALL),
    Route("dialback", "POST", "/1/dialback", DialbackAnswer, DialbackRequest, request_limit=SMALL, deadline_s=15.0),
    Route("groups", "GET", "/1/groups", GroupsAnswer),
    Route("join", "POST", "/1/groups", None, GroupPost, request_limit=SMALL),
    Route("quote", "POST", "/1/quotes", Quote, QuoteRequest, request_limit=SMALL),
    Route(
        "lease", "POST", "/1/leases", Accept, LeaseOffer,
        request_limit=SMALL + INPUT_WITH_LEASE, deadline_s=_transfer_s(INPUT_WITH_LEASE),
    ),
    Route("put_input", "PUT", "/1/leases/{h}/input", None, InputUpload, request_limit=INPUT + ENVELOPE, deadline_s=_transfer_s(INPUT)),
    Route(
        "poll", "GET", "/1/leases/{h}", LeaseStatus, query=PollQuery,
        answer_limit=SMALL_ANSWER + ENVELOPE, deadline_s=LONG_POLL_MS / 1000 + _transfer_s(SMALL_ANSWER),
    ),
    Route("result", "GET", "/1/leases/{h}/result", ResultAnswer, answer_limit=OUTPUT + SMALL_ANSWER + ENVELOPE, deadline_s=_transfer_s(OUTPUT)),
    Route("reveal", "POST", "/1/leases/{h}/reveal", RevealAnswer, RevealRequest, request_limit=SMALL),
    Route("cancel", "POST", "/1/leases/{h}/cancel", LeaseStatus, Empty, request_limit=SMALL, answer_limit=ENVELOPE),
    Route(
        "entries", "POST", "/1/entries", EntriesAnswer, EntriesPost,
        request_limit=ENTRIES_PER_POST * 2 * Entry.limit, answer_limit=ENTRIES_PER_POST * 2 * Entry.limit,
    ),
    Route("account", "GET", "/1/account", AccountAnswer, query=AccountQuery, answer_limit=ENTRIES_PER_POST * 2 * Entry.limit),
    Route("put_object", "PUT", "/1/objects/{h}", UploadAnswer, Upload, request_limit=max(MIB, CHUNK, 34 * CHUNKS) + ENVELOPE, deadline_s=MODEL_S),
    Route("get_object", "GET", "/1/objects/{h}", ObjectPart, query=PartQuery, answer_limit=CHUNK + ENVELOPE, deadline_s=_transfer_s(CHUNK)),
)  # fmt: skip

BY_NAME: Final = {route.name: route for route in ROUTES}


def describe_routes() -> str:
    """The table in Markdown."""
    rows = ["| request | body or query | answer | bytes at most | within |", "|---|---|---|---|---|"]
    for route in ROUTES:
        asked = route.body or route.query
        said = "204" if route.answer is None else getattr(route.answer, "kind", None) or route.answer.__name__
        rows.append(
            f"| `{route.method} {route.path}` | {'' if asked is None else asked.__name__} | {said} | {route.request_limit} | {route.deadline_s:g} s |"
        )
    return "\n".join(rows)
