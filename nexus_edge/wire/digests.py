"""BLAKE3 under one domain for each use: no two uses can be confused."""

import unicodedata
from collections.abc import Sequence

from blake3 import blake3

from nexus_edge.types import Digest, TensorCommitment
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import TENSORS

_PREFIX = "nexus-edge 1 "


def derive(domain: str, *parts: bytes) -> Digest:
    """BLAKE3's key derivation over the parts, one after the other: all but the last must have a fixed length in their domain."""
    hasher = blake3(derive_key_context=_PREFIX + domain)
    for part in parts:
        hasher.update(part)
    return Digest(hasher.digest())


def object_id(kind: str, body: bytes) -> Digest:
    """The name of a signed object."""
    return derive("object", kind.encode(), b"\0", body)


def blob_digest(data: bytes) -> Digest:
    """The name of plain content: a proof, a chunk of a model."""
    return derive("blob", data)


def statement_digest(statement: bytes) -> Digest:
    """What a `proof` object says of the statement that is proved."""
    return derive("statement", statement)


def output_digest(lease: Digest, output: bytes) -> Digest:
    """What a `result` says of the output: bound to the lease, so that equal outputs of two jobs cannot be told."""
    return derive("output", lease, output)


def input_commitment(commitments: Sequence[TensorCommitment]) -> Digest:
    """A lease's `inc`: the commitment to the one input, or the digest of the commitments to several in the model's order."""
    if not 1 <= len(commitments) <= TENSORS or any(len(one) != 32 for one in commitments):
        raise BadObject(f"a job has 1 to {TENSORS} inputs with commitments of 32 bytes")
    if len(commitments) == 1:
        return Digest(bytes(commitments[0]))
    return derive("inputs", *commitments)


def invoice_reference(words: str) -> Digest:
    """The `ref` of a `prepaid` entry: both owners name the invoice in the same words, which nobody else can tell from it unless they are guessed."""
    return derive("invoice", unicodedata.normalize("NFC", words.strip()).encode())


def audit_commitment(job: bytes, attempt: int, issuer: bytes, secret: bytes) -> Digest:
    """`commit` of a lease or accept: `secret` is 32 random bytes, or zeros where nothing is sampled."""
    return derive("audit commit", job, bytes([attempt]), issuer, secret)
