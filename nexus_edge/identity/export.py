"""A node key under a password, to be kept elsewhere or moved: scrypt makes the key of AES-256-GCM.

The file is text, so that it survives mail and paper: a first line, the node id, and base64 of salt, nonce, ciphertext, tag and check. The
first two lines are authenticated too. The check tells a damaged file from a wrong password, before any work is done.
"""

import base64
import binascii
import os
import unicodedata
from typing import Final

from blake3 import blake3
from Crypto.Cipher import AES
from Crypto.Protocol.KDF import scrypt

from nexus_edge.errors import IdentityError
from nexus_edge.identity.ids import format_node_id
from nexus_edge.identity.key import NodeKey

LEAST_PASSWORD: Final = 10
"""Characters. A shorter one falls to guessing offline whatever scrypt costs."""
EXPORT_LIMIT: Final = 1024
"""Bytes of a file, with white space that mail programs add."""

_HEADER: Final = b"nexus-edge encrypted node key 1"
_SALT, _NONCE, _SEED, _TAG, _CHECK = 16, 12, 32, 16, 8
_N, _R, _P = 2**17, 8, 1
"""128 MiB and half a second for each guess (RFC 7914; OWASP's first choice). Fixed, so that no file can ask for more."""


def export_key(key: NodeKey, password: str) -> bytes:
    """The file. Raises `IdentityError` if the password is too short."""
    if len(password) < LEAST_PASSWORD:
        raise IdentityError("the key is not exported", f"the password has {len(password)} characters", f"use {LEAST_PASSWORD} or more")
    salt, nonce = os.urandom(_SALT), os.urandom(_NONCE)
    head = _head(format_node_id(key.id).encode())
    cipher = AES.new(_derived(password, salt), AES.MODE_GCM, nonce=nonce, mac_len=_TAG)
    cipher.update(head)
    ciphertext, tag = cipher.encrypt_and_digest(key.seed())
    sealed = salt + nonce + ciphertext + tag
    return head + base64.b64encode(sealed + _check(head + sealed)) + b"\n"


def import_key(data: bytes, password: str) -> NodeKey:
    """The key in a file. Raises `IdentityError` if it is no export, is damaged, or has another password."""
    lines, header = data.split(), _HEADER.split()
    if len(data) > EXPORT_LIMIT or not is_export(data) or len(lines) < len(header) + 2:
        raise IdentityError("this is no exported node key", "it does not begin as one", "`key export` makes one")
    head = _head(lines[len(header)])
    try:
        content = base64.b64decode(b"".join(lines[len(header) + 1 :]), validate=True)
    except binascii.Error:
        content = b""
    sealed, check = content[:-_CHECK], content[-_CHECK:]
    if len(sealed) != _SALT + _NONCE + _SEED + _TAG or check != _check(head + sealed):
        raise IdentityError("the exported node key is damaged", "its check does not fit", "take another copy")
    salt, nonce = sealed[:_SALT], sealed[_SALT : _SALT + _NONCE]
    cipher = AES.new(_derived(password, salt), AES.MODE_GCM, nonce=nonce, mac_len=_TAG)
    cipher.update(head)
    try:
        key = NodeKey.from_seed(cipher.decrypt_and_verify(sealed[_SALT + _NONCE : -_TAG], sealed[-_TAG:]))
    except ValueError:
        raise IdentityError("the exported node key cannot be opened", "the password is wrong") from None
    if _head(format_node_id(key.id).encode()) != head:
        raise IdentityError("the exported node key is wrong", "it holds the key of another node than it says")
    return key


def is_export(data: bytes) -> bool:
    """Whether a file begins as an exported key."""
    header = _HEADER.split()
    return data.split()[: len(header)] == header


def _derived(password: str, salt: bytes) -> bytes:
    """Unicode in one form: keyboards differ in how they write the same character."""
    derived = scrypt(unicodedata.normalize("NFC", password).encode(), salt, 32, N=_N, r=_R, p=_P)
    assert isinstance(derived, bytes)  # a list only of several keys
    return derived


def _head(node: bytes) -> bytes:
    return _HEADER + b"\n" + node + b"\n"


def _check(content: bytes) -> bytes:
    return blake3(content, derive_key_context="nexus-edge 1 exported node key check").digest(length=_CHECK)
