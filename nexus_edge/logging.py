"""Logs on standard error: for people on a terminal, one JSON object a line else. What is secret is never in them.

Records carry the ids that are bound where work begins (`structlog.contextvars.bound_contextvars(job=..., peer=...)`). Bytes are printed
only under a name that says which id they are; anything else that is no plain value is printed as its type. So a record cannot hold a key,
an input or an output by accident. A secret that could still be inside a text (of an exception, say) is `forbid`den once, where it is read.
"""

import base64
import contextlib
import logging as standard
import os
import sys
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TextIO

import structlog

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "json"]

RING: Final = 10_000
"""Records kept for those who look later: a busy hour."""
TEXT: Final = 2_000
"""Characters of one value: peers' texts are shorter, and a ring of longer ones would not be bounded."""
TRACEBACK: Final = 20_000
ITEMS: Final = 32
"""Elements of one list or mapping."""
DEPTH: Final = 4
SHORTEST_SECRET: Final = 8
"""Bytes: removing shorter ones would remove what they are equal to by chance."""

HIDDEN: Final = "hidden"
_SECRET_NAMES: Final = (
    "key",
    "token",
    "seed",
    "secret",
    "password",
    "passphrase",
    "credential",
    "authorization",
    "cookie",
    "input",
    "output",
)
_INNOCENT: Final = frozenset({"verifying_key", "input_bytes", "output_bytes", "key_bytes", "input_ms", "key_file", "input_opening"})
"""Names with such a word in them, of values that are no secret."""

Record = Mapping[str, Any]


def _peer(value: bytes) -> str:
    return base64.b32encode(value).decode().lower()[:7]


def _hex(value: bytes) -> str:
    return value.hex()[:8]


_IDS: Final[dict[str, tuple[int, Callable[[bytes], str]]]] = {
    **dict.fromkeys(("node", "peer", "worker", "requester"), (32, _peer)),
    "job": (16, lambda value: f"j-{_hex(value)}"),
    "chain": (8, _hex),
    **dict.fromkeys(("lease", "quote", "result", "proof", "entry", "object", "model", "digest", "blob", "ref"), (32, _hex)),
}
"""Of each name that bytes may have: their length, and how they are shown."""


@dataclass(frozen=True)
class Numbered:
    """A record and its place in the order of all."""

    seq: int
    record: Record


class Ring:
    """The last records, for whoever looks at the agent: older ones go."""

    def __init__(self, size: int = RING) -> None:
        self._records: deque[Numbered] = deque(maxlen=size)
        self._seq = 0

    def append(self, record: Record) -> None:
        """Keep one."""
        self._seq += 1
        self._records.append(Numbered(self._seq, MappingProxyType(dict(record))))

    def since(self, seq: int = 0, limit: int = RING) -> list[Numbered]:
        """The newest records after that one, in their order; threads may write meanwhile."""
        return [numbered for numbered in list(self._records) if numbered.seq > seq][-limit:]


records: Final = Ring()
"""Of this process."""


class Secrets:
    """Values that must not appear, in any of the forms in which bytes are usually printed."""

    def __init__(self) -> None:
        self._forms: frozenset[str] = frozenset()

    def forbid(self, secret: bytes | str) -> None:
        """From now on no record holds it. Raises `ValueError` if it is too short to be looked for."""
        raw = secret.encode() if isinstance(secret, str) else secret
        if len(raw) < SHORTEST_SECRET:
            raise ValueError(f"a secret of less than {SHORTEST_SECRET} bytes cannot be told from other text")
        forms = {raw.hex(), raw.hex().upper(), repr(raw)[2:-1]}
        for encode in (base64.b64encode, base64.urlsafe_b64encode, base64.b32encode):
            text = encode(raw).decode().rstrip("=")
            forms |= {text, text.lower()} if encode is base64.b32encode else {text}
        if raw.isascii():
            forms.add(raw.decode())
        self._forms |= forms

    def remove(self, text: str) -> str:
        """The text without them."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, HIDDEN)
        return text


secrets: Final = Secrets()
"""Of this process."""


def clean(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The processor that lets only harmless values through."""
    return {_text(name, TEXT): _clean(name, value) for name, value in record.items()}


def configure(*, level: Level = "info", form: Format = "auto", stream: TextIO | None = None, ring: Ring | None = None) -> Ring:
    """Send the records of this process, and of the libraries it uses, to `stream` (standard error). Returns the ring they are kept in."""
    stream, ring = stream or sys.stderr, records if ring is None else ring
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _utc,
        structlog.processors.format_exc_info,  # the traceback as text, without local variables
        clean,
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, structlog.stdlib.PositionalArgumentsFormatter(), *shared, _hand_over],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _Handler(stream)
    # A record of ours is clean already; one of a library comes as text, and with its traceback.
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _keep_in(ring), *_rendered(form, stream)],
        )
    )
    root = standard.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for chatty in ("asyncio", "aiohttp", "zeroconf"):
        standard.getLogger(chatty).setLevel(max(standard.WARNING, root.level))
    return ring


class _Handler(standard.StreamHandler[TextIO]):
    """Says that a record could not be written. The library would print its arguments, whatever they are."""

    def handleError(self, record: standard.LogRecord) -> None:
        kind = type(sys.exception()).__name__
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more
            self.stream.write(f"a log record of {record.name} could not be written: {kind}\n")


def _rendered(form: Format, stream: TextIO) -> list[structlog.typing.Processor]:
    if form == "console" or (form == "auto" and stream.isatty()):
        colours = stream.isatty() and not os.environ.get("NO_COLOR")
        return [_local, structlog.dev.ConsoleRenderer(colors=colours, exception_formatter=structlog.dev.plain_traceback)]
    return [structlog.processors.JSONRenderer(ensure_ascii=False)]


def _hand_over(logger: Any, name: str, record: MutableMapping[str, Any]) -> Any:
    return structlog.stdlib.ProcessorFormatter.wrap_for_formatter(logger, name, record)


def _keep_in(ring: Ring) -> structlog.typing.Processor:
    def keep(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        ring.append(record)
        return record

    return keep


def _utc(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record["timestamp"] = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return record


def _local(_: Any, __: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """People's clocks show local time."""
    record["timestamp"] = datetime.fromisoformat(record["timestamp"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    return record


def _clean(name: str, value: Any, depth: int = 0) -> Any:
    if _is_secret(name) and not isinstance(value, bool | None):
        return HIDDEN
    match value:
        case bool() | None | float():
            return value
        case Enum():
            return _clean(name, value.value, depth)
        case int():
            return value
        case str():
            return _text(value, TRACEBACK if name == "exception" else TEXT, lines=name == "exception")
        case bytes() | bytearray() | memoryview():
            return _id(name, bytes(value))
        case Path() | date() | BaseException():
            return _text(str(value), TEXT)
        case Mapping() if depth < DEPTH:
            return {_text(str(key), TEXT): _clean(str(key), inner, depth + 1) for key, inner in list(value.items())[:ITEMS]}
        case list() | tuple() | set() | frozenset() if depth < DEPTH:
            return [_clean(name, inner, depth + 1) for inner in list(value)[:ITEMS]]
        case _:
            return f"<{type(value).__name__}>"


def _is_secret(name: str) -> bool:
    lower = name.lower()
    return lower not in _INNOCENT and any(word in lower.split("_") for word in _SECRET_NAMES)


def _id(name: str, value: bytes) -> str:
    length, show = _IDS.get(name, (0, _hex))
    return show(value) if len(value) == length else f"<{len(value)} bytes>"


def _text(text: str, limit: int, *, lines: bool = False) -> str:
    """No secrets; no control characters, which a terminal would obey and with which a peer could forge a line; no endless ones."""
    text = secrets.remove(text)
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() or (lines and letter == "\n") else _escaped(letter) for letter in text)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "backslashreplace").decode()
