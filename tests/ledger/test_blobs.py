"""Content by digest: whole or not there, and never more than the limit."""

import asyncio
from pathlib import Path

import pytest

from nexus_edge.ledger import BlobStore, DiskFull
from nexus_edge.types import Bytes
from nexus_edge.wire.digests import blob_digest

pytestmark = pytest.mark.asyncio


async def test_put_get_drop(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    digest = await blobs.put(b"content")
    assert digest == blob_digest(b"content")
    assert await blobs.get(digest) == b"content"
    assert (tmp_path / digest.hex()).stat().st_mode & 0o777 == 0o600
    await blobs.drop(digest)
    await blobs.drop(digest)
    assert (await blobs.get(digest), await blobs.has(digest), blobs.held) == (None, False, 0)


async def test_damaged_content_is_not_given_out_and_is_replaced(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    digest = await blobs.put(b"content")
    (tmp_path / digest.hex()).write_bytes(b"cont")
    assert await blobs.get(digest) is None
    assert await blobs.put(b"content") == digest
    assert await blobs.get(digest) == b"content"
    assert blobs.held == 7


async def test_the_limit_holds_for_many_at_once(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path, Bytes(1000))
    ended = await asyncio.gather(*(blobs.put(bytes([number]) * 100) for number in range(30)), return_exceptions=True)
    assert sum(isinstance(one, DiskFull) for one in ended) == 20
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) == blobs.held == 1000
    await asyncio.gather(*(blobs.drop(one) for one in ended if isinstance(one, bytes)))
    assert blobs.held == 0


async def test_the_same_at_once_counts_once_and_after_a_restart_too(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    await asyncio.gather(*(blobs.put(b"same" * 1000) for _ in range(10)))
    assert blobs.held == 4000
    (tmp_path / "rest.part").write_bytes(b"half")
    assert BlobStore(tmp_path).held == 4000
    assert len(list(tmp_path.iterdir())) == 1
