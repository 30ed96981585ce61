"""Mutual TLS 1.3 in which the node key is the TLS key, so that the handshake proves the node id to both sides.

Python's `ssl` has no callback for verification. So each node issues itself a certificate signed by an authority whose key everyone knows: it
adds no trust, it only makes OpenSSL accept a stranger's certificate. Trust is the comparison of the key, which both sides do.
"""

import datetime
import os
import ssl
import tempfile
from typing import Any, Final

from blake3 import blake3
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from nexus_edge.errors import IdentityError
from nexus_edge.identity import NodeKey, check_node_id, short_id
from nexus_edge.types import NodeId

_SINCE: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_UNTIL: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""Nothing to rotate: a certificate says no more than the key in it."""

_WELL_KNOWN: Final = Ed25519PrivateKey.from_private_bytes(
    blake3(b"", derive_key_context="nexus-edge 1 well-known certificate authority").digest()
)
"""Everyone can derive it, and nobody relies on it."""

_ISSUER: Final = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nexus-edge: anyone")])


def authority() -> x509.Certificate:
    """The well-known authority's certificate, the same bytes everywhere."""
    usage = x509.KeyUsage(
        key_cert_sign=True, crl_sign=False, digital_signature=False, content_commitment=False, key_encipherment=False,
        data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        _certificate(_WELL_KNOWN.public_key(), _ISSUER, 1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(_WELL_KNOWN, None)
    )


def leaf(key: NodeKey, signer: Ed25519PrivateKey = _WELL_KNOWN) -> x509.Certificate:
    """The certificate that a node issues itself."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, short_id(key.id))])
    serial = int.from_bytes(blake3(key.id, derive_key_context="nexus-edge 1 certificate serial").digest(length=19), "big") + 2
    return (
        _certificate(key.private.public_key(), name, serial)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(signer, None)
    )


def server_context(key: NodeKey) -> ssl.SSLContext:
    """For the listening side: asks for a certificate, and gives no tickets, so that every connection proves its key afresh."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, key, leaf(key))
    context.num_tickets = 0
    return context


def client_context(key: NodeKey) -> ssl.SSLContext:
    """For the dialling side. The peer's key is compared by the caller, before anything is sent."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, key, leaf(key))


def peer_of(tls: Any) -> NodeId:
    """The node id that a finished handshake proves; `tls` is the transport's `ssl_object`. Raises `IdentityError`."""
    data = None if tls is None else tls.getpeercert(binary_form=True)
    if not data:
        raise IdentityError("the peer showed no certificate")
    try:
        key = x509.load_der_x509_certificate(data).public_key()
    except ValueError as broken:
        raise IdentityError("the peer's certificate cannot be read", str(broken)) from None
    if not isinstance(key, Ed25519PublicKey):
        raise IdentityError("the peer's key is of another kind", f"{type(key).__name__}, expected Ed25519")
    return check_node_id(key.public_bytes_raw())


def _context(side: int, key: NodeKey, certificate: x509.Certificate) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=_pem(authority()))
    _load(context, key, certificate)
    return context


def _load(context: ssl.SSLContext, key: NodeKey, certificate: x509.Certificate) -> None:
    """OpenSSL wants files. The key's is in memory where there is `memfd`, else one of mode 0600 that is gone at once."""
    secret = key.private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    content = secret + _pem(certificate).encode()
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("nexus-edge-tls", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        context.load_cert_chain(file.name)


def _certificate(key: Ed25519PublicKey, name: x509.Name, serial: int) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(_ISSUER)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(_SINCE)
        .not_valid_after(_UNTIL)
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
