"""Group certificates: when they hold, and the file that keeps one."""

import pytest

from nexus_edge.clock import now_ms
from nexus_edge.errors import IdentityError
from nexus_edge.types import UnixMs
from nexus_edge.wire.certificates import check_certificate, issue, read_certificate, write_certificate
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.objects import GroupCertificate
from nexus_edge.wire.refusals import Code, Refusal
from tests.support.books import A, B
from tests.support.fleets import DAY_MS, OWNER

NOW = 1_800_000_000_000
HOUR = 3_600_000


def signed(**changes: int) -> GroupCertificate:
    fields = {"at": NOW, "exp": NOW + DAY_MS, "seq": NOW, **changes}
    return GroupCertificate(iss=OWNER.id, node=A.id, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "now", "code"),
    [
        ({}, NOW, None),
        ({}, NOW + DAY_MS - 1, None),
        ({}, NOW + DAY_MS, Code.CONFLICT),  # it has ended
        ({}, NOW - HOUR, None),  # the owner's clock is an hour ahead, or ours behind
        ({}, NOW - HOUR - 1, Code.CONFLICT),
        ({"exp": NOW + 30 * DAY_MS}, NOW, None),
        ({"exp": NOW + 30 * DAY_MS + 1}, NOW, Code.BAD_OBJECT),
        ({"exp": NOW + 31 * DAY_MS}, NOW, Code.BAD_OBJECT),
        ({"exp": NOW}, NOW - 1, Code.BAD_OBJECT),
        ({"seq": NOW + 1}, NOW, Code.BAD_OBJECT),
        ({"seq": 2**53 - 1}, NOW, Code.BAD_OBJECT),
    ],
)
def test_when_a_certificate_holds(changes: dict[str, int], now: int, code: Code | None) -> None:
    found = None
    try:
        check_certificate(signed(**changes), A.id, UnixMs(now))
    except Refusal as refused:
        found = refused.code
    assert found is code


def test_it_counts_for_its_node_alone() -> None:
    with pytest.raises(Refusal) as refused:
        check_certificate(signed(), B.id, UnixMs(NOW))
    assert refused.value.code is Code.NOT_YOURS


def test_an_owner_cannot_issue_what_nobody_takes() -> None:
    issued = issue(OWNER, A.id, now_ms(), 30 * DAY_MS)
    check_certificate(issued.object, A.id, now_ms())
    with pytest.raises(BadObject, match="30 days"):
        issue(OWNER, A.id, now_ms(), 30 * DAY_MS + 1)


def test_the_file_survives_mail() -> None:
    issued = issue(OWNER, A.id, now_ms(), DAY_MS)
    data = write_certificate(issued)
    assert read_certificate(data) == issued
    assert read_certificate(b"  " + data.replace(b"\n", b"\r\n ") + b"\n\n") == issued


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:0], lambda data: b"x" + data, lambda data: data[:-9], lambda data: data[:60] + b"!" + data[61:]]
)
def test_a_damaged_file_is_told(spoil: object) -> None:
    data = write_certificate(issue(OWNER, A.id, now_ms(), DAY_MS))
    with pytest.raises(IdentityError, match="group certificate"):
        read_certificate(spoil(data))  # type: ignore[operator]
