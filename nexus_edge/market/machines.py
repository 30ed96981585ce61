"""State machines whose events are in the ledger: the state is what `apply` makes of them, now and after a restart."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakValueDictionary

from nexus_edge.errors import LedgerError
from nexus_edge.ledger import Ledger, Transaction
from nexus_edge.market.events import event_body, event_from
from nexus_edge.types import UnixMs

State = TypeVar("State")
T = TypeVar("T")


class AnyEvent(Protocol):
    """What all events have."""

    @property
    def kind(self) -> str:
        """Its name in the ledger."""


Events = tuple[AnyEvent, ...]
Aged = tuple[State, int | None]
"""A state, and for how much of the node's age nothing has been to do about it; None while there is."""


@dataclass(frozen=True)
class Rules(Generic[State]):
    """A kind of machine: how it begins, and how events change it."""

    stream: str
    kinds: dict[str, Any]
    begin: Callable[[Any, Any], State]
    apply: Callable[[Any, State], State]
    is_over: Callable[[State], bool]
    """Whether nothing more is to be done, but what others may ask for."""


class Machines(Generic[State]):
    """All machines of one kind."""

    def __init__(self, ledger: Ledger, rules: Rules[State]) -> None:
        self._ledger = ledger
        self._rules = rules
        self._states: dict[bytes, State] = {}
        self._versions: dict[bytes, int] = defaultdict(int)
        self._since: dict[bytes, UnixMs] = {}
        """How old the node was when the last thing happened to each that is over."""
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._writing: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._changed = asyncio.Condition()

    async def load(self) -> None:
        """Rebuild every state that was not forgotten from the ledger's events. Raises `LedgerError` if they contradict each other."""
        stream = self._rules.stream
        since, events = await self._ledger.read(lambda reader: (reader.live(stream), reader.live_events(stream)))
        for event in events:
            what = event_from(self._rules.kinds, event.kind, dict(event.body))
            state = self._states.get(event.subject)
            self._states[event.subject] = self._rules.begin(event.subject, what) if state is None else self._rules.apply(what, state)
            self._versions[event.subject] += 1
        over = [subject for subject, state in self._states.items() if self._rules.is_over(state)]
        self._since = {subject: at for subject in over if (at := since[subject]) is not None}
        # A former version did not write how old it was: they grow old from now on.
        if unknown := [subject for subject in over if subject not in self._since]:
            at = await self._ledger.transact(f"{stream}:age", lambda transaction: self._over(transaction, unknown))
            self._since.update(dict.fromkeys(unknown, at))

    def _over(self, transaction: Transaction, subjects: Iterable[bytes]) -> UnixMs:
        for subject in subjects:
            transaction.over(self._rules.stream, subject)
        return transaction.age

    def __iter__(self) -> Iterator[State]:
        return iter(list(self._states.values()))

    def get(self, subject: bytes) -> State | None:
        """The state of one machine."""
        return self._states.get(subject)

    def __getitem__(self, subject: bytes) -> State:
        return self._states[subject]

    def version(self, subject: bytes) -> int:
        """How many events it has seen: for `changed`."""
        return self._versions[subject]

    def lock(self, subject: bytes) -> asyncio.Lock:
        """Whoever decides by a state and then records an event holds this meanwhile."""
        return _lock(self._locks, subject)

    def aged(self) -> list[Aged[State]]:
        """All of them."""
        return [(state, self.over_ms(subject)) for subject, state in self._states.items()]

    def over_ms(self, subject: bytes) -> int | None:
        """For how much of the node's age nothing has been to do about it; None while there is."""
        since = self._since.get(subject)
        return None if since is None else self._ledger.age() - since

    async def forget(self, subjects: Collection[bytes]) -> None:
        """Nothing more will happen to them, and nobody will ask: their events stay in the ledger, and are not read at a start."""
        if subjects:
            await self._ledger.transact(f"{self._rules.stream}:leave", lambda transaction: transaction.leave(self._rules.stream, subjects))
        for subject in subjects:
            self._states.pop(subject, None)
            self._versions.pop(subject, None)
            self._since.pop(subject, None)

    async def begin(self, subject: bytes, event: AnyEvent, work: Callable[[Transaction], T], then: Callable[[], None] = lambda: None) -> T:
        """Write the first event, and in the same transaction what belongs to it. The machine exists once both are on the disk.

        `then` is called as soon as it does, whatever becomes of the caller: a request may be over its deadline by then.
        """
        state = self._rules.begin(subject, event)

        def step(transaction: Transaction) -> tuple[Events, State, T]:
            if transaction.has_events(self._rules.stream, subject):
                raise LedgerError(f"the {self._rules.stream} has begun before", subject.hex())
            return (event,), state, work(transaction)

        return await self._write(subject, event.kind, step, then)

    async def record(self, subject: bytes, event: AnyEvent, work: Callable[[Transaction], T], then: Callable[[], None] = lambda: None) -> T:
        """Write an event, and in the same transaction what belongs to it; the state changes once both are on the disk.

        Raises `LedgerError`, having written nothing, if the event cannot follow.
        """
        return await self.record_made(subject, event.kind, lambda transaction: ((event,), work(transaction)), then)

    async def record_made(
        self, subject: bytes, kind: str, make: Callable[[Transaction], tuple[Events, T]], then: Callable[[], None] = lambda: None
    ) -> T:
        """Likewise, for events that name what is made in the transaction; `kind` is that of the last."""

        def step(transaction: Transaction) -> tuple[Events, State, T]:
            events, made = make(transaction)
            state = self._states[subject]
            for event in events:
                state = self._rules.apply(event, state)
            return events, state, made

        return await self._write(subject, kind, step, then)

    async def _write(
        self, subject: bytes, kind: str, step: Callable[[Transaction], tuple[Events, State, T]], then: Callable[[], None]
    ) -> T:  # fmt: skip
        """Whoever waits may be cancelled; what is written is applied all the same."""
        return await asyncio.shield(asyncio.create_task(self._commit(subject, kind, step, then), name=f"{self._rules.stream}:{kind}"))

    async def _commit(
        self, subject: bytes, kind: str, step: Callable[[Transaction], tuple[Events, State, T]], then: Callable[[], None]
    ) -> T:  # fmt: skip
        def transition(transaction: Transaction) -> tuple[int, State, UnixMs | None, T]:
            events, state, made = step(transaction)
            for event in events:
                transaction.event(self._rules.stream, subject, event.kind, event_body(event))
            since = self._over(transaction, (subject,)) if self._rules.is_over(state) else None
            return len(events), state, since, made

        # A caller that was cancelled has let go of `lock` while this goes on: two events must not follow one state.
        async with _lock(self._writing, subject):
            steps, state, since, made = await self._ledger.transact(f"{self._rules.stream}:{kind}", transition)
            self._states[subject] = state
            if since is not None:
                self._since[subject] = since
            self._versions[subject] += steps
            then()
        await self.touched()
        return made

    async def touched(self) -> None:
        """Wake those who wait for changes."""
        async with self._changed:
            self._changed.notify_all()

    async def changed(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until the condition holds, at most so long; whether it does."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            return False
        return True


def _lock(locks: WeakValueDictionary[bytes, asyncio.Lock], subject: bytes) -> asyncio.Lock:
    lock = locks.get(subject)
    if lock is None:
        lock = locks[subject] = asyncio.Lock()
    return lock


def nothing(_: Transaction) -> None:
    """For events that nothing else belongs to."""
