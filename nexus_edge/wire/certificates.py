"""Group certificates: how an owner issues them, when they hold, and the file in which a member keeps one.

The file is text, so that it survives mail: a first line, the rest base64 of the signed object. It is no secret.
"""

import base64
import binascii
from typing import Final

from nexus_edge.errors import IdentityError
from nexus_edge.identity import NodeKey, short_id
from nexus_edge.types import NodeId, UnixMs
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import GROUP_LIFE_MS, RECORD_AHEAD_MS
from nexus_edge.wire.objects import GroupCertificate
from nexus_edge.wire.refusals import Code, Refusal
from nexus_edge.wire.signing import Signed, read_signed, sign

FILE_LIMIT: Final = 4096
"""Bytes of a file, with white space that mail programs add."""

_HEADER: Final = b"nexus-edge group certificate 1"


def issue(key: NodeKey, node: NodeId, now: UnixMs, life_ms: int) -> Signed[GroupCertificate]:
    """Say that a node belongs to the key's fleet from now on. Raises `BadObject` if that is longer than 30 days."""
    certificate = GroupCertificate(iss=key.id, at=now, node=node, exp=UnixMs(now + life_ms), seq=now)
    _check_form(certificate)
    return sign(key, certificate)


def check_certificate(certificate: GroupCertificate, node: NodeId, now: UnixMs) -> None:
    """Raise a `Refusal` unless it names the node and holds now.

    `not-yours`: it names another. `bad-object`: no time makes it good. `conflict`: it has ended, or is ahead of our clock.
    """
    if certificate.node != node:
        raise Refusal(Code.NOT_YOURS, f"the certificate is for {short_id(certificate.node)}")
    try:
        _check_form(certificate)
    except BadObject as bad:
        raise Refusal(Code.BAD_OBJECT, bad.why) from None
    if certificate.exp <= now:
        raise Refusal(Code.CONFLICT, "the certificate has ended: ask the fleet's owner for a new one")
    if certificate.at > now + RECORD_AHEAD_MS:
        raise Refusal(Code.CONFLICT, "the certificate is from the future: a clock is wrong")


def write_certificate(certificate: Signed[GroupCertificate]) -> bytes:
    """The file."""
    return _HEADER + b"\n" + base64.b64encode(certificate.to_bytes()) + b"\n"


def read_certificate(data: bytes) -> Signed[GroupCertificate]:
    """The certificate in a file; whether it holds is another question. Raises `IdentityError`."""
    lines, header = data.split(), _HEADER.split()
    if lines[: len(header)] != header:
        raise IdentityError("this is no group certificate", "it does not begin as one", "`group sign` makes one")
    try:
        return read_signed(base64.b64decode(b"".join(lines[len(header) :]), validate=True), GroupCertificate)
    except (binascii.Error, BadObject) as bad:
        why = bad.why if isinstance(bad, BadObject) else "it is not base64"
        raise IdentityError("the group certificate is damaged", why, "take another copy") from None


def _check_form(certificate: GroupCertificate) -> None:
    # With the two the same, nothing older than what is held can outlive it by more than the longest life: then it may be forgotten.
    if certificate.seq != certificate.at:
        raise BadObject("a certificate's seq is the time of its signature")
    if not certificate.at < certificate.exp <= certificate.at + GROUP_LIFE_MS:
        raise BadObject(f"a certificate holds for at most {GROUP_LIFE_MS // 86_400_000} days, and for some time")
