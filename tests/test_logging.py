"""Logs: ids on every line, one record a line, and no secret in any of them, however it gets there."""

import base64
import io
import json
import logging as standard
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge import logging
from nexus_edge.identity import NodeKey, short_id
from nexus_edge.logging import Ring, Secrets, clean, configure

SEED = bytes(range(100, 132))
TOKEN = "nexus-token-0123456789abcdef"
PIXELS = b"\x13\x37" * 400
FORMS = [
    SEED.hex(),
    SEED.hex().upper(),
    base64.b64encode(SEED).decode().rstrip("="),
    base64.urlsafe_b64encode(SEED).decode().rstrip("="),
    base64.b32encode(SEED).decode().rstrip("="),
    repr(SEED)[2:-1],
    SEED.decode("ascii", "replace")[:20],
    TOKEN,
]


@dataclass
class Logged:
    stream: io.StringIO
    ring: Ring

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture(params=["json", "console"])
def any_form(request: pytest.FixtureRequest) -> Iterator[Logged]:
    yield from configured(request.param)


@pytest.fixture
def logged() -> Iterator[Logged]:
    yield from configured("json")


def configured(form: Any) -> Iterator[Logged]:
    root = standard.getLogger()
    handlers, level = root.handlers[:], root.level
    logged = Logged(io.StringIO(), Ring())
    configure(level="debug", form=form, stream=logged.stream, ring=logged.ring)
    try:
        yield logged
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Secrets:
    secrets = Secrets()
    monkeypatch.setattr(logging, "secrets", secrets)
    secrets.forbid(SEED)
    secrets.forbid(TOKEN)
    return secrets


@dataclass(frozen=True)
class Upload:
    """Something with an input in it, and a `repr` that shows it."""

    data: bytes
    seed: bytes


class Colour(Enum):
    RED = "red"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_colour", [False, True])
def test_colours_are_for_terminals_whose_owner_wants_them(monkeypatch: pytest.MonkeyPatch, *, no_colour: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_colour:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(io, "StringIO", Terminal)
    for logged in configured("auto"):
        structlog.get_logger("market").info("leased")
        assert ("\x1b[" in logged.text) is not no_colour
        assert "leased" in logged.text


# Ids


def test_bound_ids_are_on_every_line(logged: Logged) -> None:
    key = NodeKey.from_seed(SEED)
    with structlog.contextvars.bound_contextvars(job=bytes.fromhex("4f2a" + 28 * "0"), peer=key.id):
        structlog.get_logger("market").info("leased")
        standard.getLogger("nexus_edge.other").warning("from a library")
    structlog.get_logger("market").info("outside")
    bound = {"job": "j-4f2a0000", "peer": short_id(key.id)}
    assert [bound.items() <= record.items() for record in logged.records] == [True, True, False]
    assert [record["logger"] for record in logged.records] == ["market", "nexus_edge.other", "market"]


@pytest.mark.parametrize("name", ["peer", "worker", "requester", "node"])
def test_node_ids_are_shown_as_everywhere(name: str) -> None:
    node = NodeKey.from_seed(SEED).id
    assert clean(None, "", {name: node})[name] == short_id(node)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("lease", bytes.fromhex("ab" * 32), "abababab"),
        ("peer", b"short", "<5 bytes>"),
        ("data", bytes(32), "<32 bytes>"),
        ("path", Path("/a/b"), "/a/b"),
        ("colour", Colour.RED, "red"),
        ("count", 3, 3),
        ("share", 0.5, 0.5),
        ("nothing", None, None),
        ("verified", True, True),
        ("several", (1, b"x", "y"), [1, "<1 bytes>", "y"]),
        ("inside", {"seed": SEED, "n": 1}, {"seed": "hidden", "n": 1}),
        ("input_bytes", 400, 400),
        ("upload", Upload(PIXELS, SEED), "<Upload>"),
        ("deep", [[[[[1]]]]], [[[["<list>"]]]]),
    ],
)
def test_values(name: str, value: object, shown: object) -> None:
    assert clean(None, "", {name: value})[name] == shown


# Secrets


def test_planted_secrets_are_in_no_line(any_form: Logged, planted: Secrets) -> None:
    log = structlog.get_logger("agent")
    log.info("as values", seed=SEED, token=TOKEN, input=PIXELS, data=PIXELS, raw=SEED, view=memoryview(SEED), upload=Upload(PIXELS, SEED))
    log.info("in texts", text=f"with {SEED.hex()} and {TOKEN}", other=str(SEED), listed=[SEED.hex(), {"x": TOKEN}])
    log.info(f"in the event {TOKEN} {base64.b64encode(SEED).decode()}")
    log.info("by position %s", SEED.hex())
    log.info("as a name", **{TOKEN: 1})
    for text in (SEED.hex(), str(SEED), TOKEN, base64.b32encode(SEED).decode()):
        try:
            raise ValueError(text)
        except ValueError as error:
            local_in_the_frame = SEED
            log.exception("in a traceback", error=error, size=len(local_in_the_frame))
            standard.getLogger("library").exception("in a library's %s", text)
    standard.getLogger("library").warning("%s", SEED)
    kept = "".join(str(dict(numbered.record)) for numbered in any_form.ring.since())
    for form in FORMS:
        assert form not in any_form.text
        assert form not in kept
    assert repr(PIXELS[:8])[2:-1] not in any_form.text + kept
    assert any_form.text.count("in a traceback") == 4
    assert planted.remove(TOKEN) == "hidden"


def test_a_broken_record_does_not_print_its_arguments(any_form: Logged, capsys: pytest.CaptureFixture[str]) -> None:
    root = standard.getLogger()
    root.handlers[:] = [ours for ours in root.handlers if type(ours).__module__ == logging.__name__]  # the test framework's would raise
    standard.getLogger("library").warning("%d", TOKEN)
    captured = capsys.readouterr()
    assert TOKEN not in any_form.text + captured.out + captured.err
    assert "could not be written" in any_form.text


@given(secret=st.binary(min_size=8, max_size=64), before=st.text(max_size=20))
def test_whatever_a_secret_is_it_is_not_in_a_text(secret: bytes, before: str) -> None:
    secrets = Secrets()
    secrets.forbid(secret)
    for form in (secret.hex(), base64.b64encode(secret).decode(), repr(secret)):
        assert form.rstrip("=") not in secrets.remove(f"{before}{form} after")


def test_short_secrets_cannot_be_looked_for() -> None:
    with pytest.raises(ValueError, match="less than 8 bytes"):
        Secrets().forbid(b"1234567")


# Lines


def test_a_peer_cannot_forge_a_line_or_steer_a_terminal(any_form: Logged) -> None:
    structlog.get_logger("peers").info("named", name='evil\n{"event": "paid"}\x1b[2J\u202e', event_of="x\r")
    assert len(any_form.text.splitlines()) == 1
    assert "\x1b[2J" not in any_form.text
    assert "\u202e" not in any_form.text


def test_texts_and_lists_are_bounded(logged: Logged) -> None:
    structlog.get_logger("peers").info("long", text="x" * 1_000_000, many=list(range(1_000_000)))
    assert len(logged.text) < 4_000


def test_times_are_utc(logged: Logged) -> None:
    structlog.get_logger("a").info("now")
    assert logged.records[0]["timestamp"].endswith("Z")


def test_levels() -> None:
    stream = io.StringIO()
    for logged in configured("json"):
        configure(level="warning", form="json", stream=stream, ring=logged.ring)
        structlog.get_logger("a").info("not this")
        structlog.get_logger("a").warning("but this")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["but this"]


def test_a_stream_that_is_no_terminal_gets_json() -> None:
    stream = io.StringIO()
    for logged in configured("json"):
        configure(form="auto", stream=stream, ring=logged.ring)
        structlog.get_logger("a").info("x")
    assert json.loads(stream.getvalue())["event"] == "x"


def test_the_ring_keeps_the_last() -> None:
    ring = Ring(3)
    for number in range(5):
        ring.append({"n": number})
    assert [(kept.seq, kept.record["n"]) for kept in ring.since()] == [(3, 2), (4, 3), (5, 4)]
    assert [kept.seq for kept in ring.since(4)] == [5]
    assert [kept.seq for kept in ring.since(0, limit=1)] == [5]
