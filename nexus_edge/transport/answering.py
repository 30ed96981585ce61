"""From requests on the wire to handlers: decodes signed objects, and refuses those that are submitted by others than their signers."""

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from nexus_edge.clock import now_ms
from nexus_edge.errors import NexusEdgeError, PeerError
from nexus_edge.transport.addresses import Caller, join_address
from nexus_edge.transport.handlers import PeerHandlers
from nexus_edge.transport.rates import Once, Rates
from nexus_edge.transport.routes import Route
from nexus_edge.types import Digest, NodeId
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import DIALBACK_INTERVAL_S, QUOTES_PER_PEER, QUOTES_PER_PREFIX
from nexus_edge.wire.messages import DialbackAnswer, PingAnswer, encode_message
from nexus_edge.wire.objects import Entry, GroupCertificate, Lease, Quote, SignedBody
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed, read_signed

DIALBACKS_PER_PREFIX: Final = 16
"""In the time that one peer may ask for one: ids cost nothing, and many would make a scanner of us for the ports behind their address."""


class Dialler(Protocol):
    """Dials back."""

    async def identify(self, host: str, port: int) -> NodeId:
        """Who answers there. Raises `PeerError`."""


class Answering:
    """Calls handlers by the name of the route."""

    def __init__(
        self,
        handlers: PeerHandlers,
        dialler: Dialler,
        reached: Callable[[Caller, int], None] = lambda *_: None,
        reaches: Callable[[NodeId], bool] = lambda _: True,
    ) -> None:
        """`reached` is told of callers who were there when they were dialled back, and at which port; `reaches` says whether a peer is reached."""
        self._handlers = handlers
        self._dialler = dialler
        self._reached = reached
        self._reaches = reaches
        self._dialbacks = Rates(1 / DIALBACK_INTERVAL_S, 2)
        self._dialbacks_of_prefix = Rates(DIALBACKS_PER_PREFIX / DIALBACK_INTERVAL_S, 2 * DIALBACKS_PER_PREFIX)
        self._quotes = Rates(QUOTES_PER_PEER, 2 * QUOTES_PER_PEER)
        self._quotes_of_prefix = Rates(QUOTES_PER_PREFIX, 2 * QUOTES_PER_PREFIX)
        self._is_new_lease = Once()

    async def __call__(self, route: Route, caller: Caller, captures: Mapping[str, str], body: Any, query: Any) -> bytes | None:
        """Answer one request. Raises `Refusal` and `BadObject`."""
        answer = await self._answer(route, caller, Digest(bytes.fromhex(captures.get("h", ""))), body, query)
        try:
            return None if answer is None else answer.to_bytes() if isinstance(answer, Signed) else encode_message(answer)
        except BadObject as ours:  # must not be taken for the caller's mistake
            raise NexusEdgeError("an answer cannot be encoded", ours.why) from ours

    async def _answer(self, route: Route, caller: Caller, digest: Digest, body: Any, query: Any) -> Any:
        handlers = self._handlers
        match route.name:
            case "node":
                return await handlers.node()
            case "caps":
                return await handlers.caps()
            case "peers":
                return await handlers.peers(caller, body)
            case "ping":
                return PingAnswer(now_ms(), join_address(caller.address, caller.port), self._reaches(caller.peer))
            case "dialback":
                return await self._dialback(caller, body.port)
            case "groups":
                return await handlers.groups()
            case "join":
                return await handlers.join(caller, own(caller, read_signed(body.certificate, GroupCertificate)))
            case "quote":
                _within(max(self._quotes.take(caller.peer), self._quotes_of_prefix.take(caller.prefix)), "quotes")
                return await handlers.quote(caller, body)
            case "lease":
                lease = own(caller, read_signed(body.lease, Lease))
                accept = await handlers.lease(caller, lease, read_signed(body.quote, Quote), body.input)
                if self._is_new_lease(lease.id):  # a quote that is taken was not asked for in vain
                    self._quotes.give(caller.peer, 1)
                    self._quotes_of_prefix.give(caller.prefix, 1)
                return accept
            case "put_input":
                return await handlers.put_input(caller, digest, body)
            case "poll":
                return await handlers.poll(caller, digest, query.after, query.wait)
            case "result":
                return await handlers.result(caller, digest)
            case "reveal":
                return await handlers.reveal(caller, digest, body)
            case "cancel":
                return await handlers.cancel(caller, digest)
            case "entries":
                return await handlers.entries(caller, tuple(own(caller, read_signed(one, Entry)) for one in body.entries))
            case "account":
                return await handlers.account(caller, query.chain, query.seq)
            case "put_object":
                return await handlers.put_object(caller, digest, body)
            case "get_object":
                return await handlers.get_object(caller, digest, query.start, query.length)
        raise Refusal(Code.NOT_FOUND, "there is no such request")

    async def _dialback(self, caller: Caller, port: int) -> DialbackAnswer:
        """Dial the connection's source address, and no other: this is not a scanner for hire."""
        _within(max(self._dialbacks.take(caller.peer), self._dialbacks_of_prefix.take(caller.prefix)), "dialbacks")
        try:
            found = await self._dialler.identify(caller.address, port)
        except PeerError as failed:
            return DialbackAnswer(False, str(failed).encode("ascii", "replace")[:200].decode())
        if found != caller.peer:
            return DialbackAnswer(False, "another node answers there")
        self._reached(caller, port)
        return DialbackAnswer(True, "")


FOREIGN: Final = "objects are submitted by their signer"


def own(caller: Caller, signed: Signed[Any]) -> Signed[Any]:
    """The object, if the caller signed it or its type is meant to be passed on. This refuses replays by others."""
    what: SignedBody = signed.object
    if signed.issuer != caller.peer and not what.passed_on:
        raise Refusal(Code.NOT_YOURS, FOREIGN)
    return signed


def _within(wait_s: float, what: str) -> None:
    if wait_s:
        raise Refusal(Code.RATE, f"too many {what}", retry_ms=int(1000 * wait_s) + 1)
