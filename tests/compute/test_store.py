"""The model store: what goes in comes out, or an error does; on a real disk, a full one too, and when the process is killed."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nexus_edge.compute.errors import BadUpload, ModelDamaged, ModelMissing, StoreFull
from nexus_edge.compute.store import INCOMING, ModelStore, manifest_digest
from nexus_edge.types import Bytes, Digest
from nexus_edge.wire.digests import blob_digest
from nexus_edge.wire.limits import CHUNK, UPLOAD_KEPT_S
from nexus_edge.wire.messages import Manifest

ROOT = Path(__file__).parents[2]


def content(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def chunks_of(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]


def manifest_of(data: bytes) -> Manifest:
    return Manifest(len(data), tuple(blob_digest(chunk) for chunk in chunks_of(data)))


def opened(folder: Path, chunks: int = 64) -> ModelStore:
    return ModelStore(folder, Bytes(chunks * CHUNK))


def put_missing(store: ModelStore, data: bytes) -> None:
    digest, chunks = manifest_digest(manifest_of(data)), chunks_of(data)
    for index in store.missing(digest):
        store.put_chunk(digest, index, chunks[index])


def all_of(store: ModelStore, digest: Digest) -> bytes:
    return store.read(digest, 0, store.manifest(digest).size)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 3 * CHUNK + 1), st.integers(0, 4 * CHUNK), st.integers(0, 4 * CHUNK))
def test_any_part_of_any_content_comes_back(tmp_path: Path, size: int, start: int, length: int) -> None:
    store = opened(tmp_path)
    data = content(size)
    digest = store.put(data)
    assert digest == manifest_digest(manifest_of(data))
    assert store.read(digest, start, length) == data[start : start + length]


def test_a_store_is_found_again(tmp_path: Path) -> None:
    data = content(2 * CHUNK + 5)
    (tmp_path / "file").write_bytes(data)
    first = opened(tmp_path / "store")
    digest = first.put_file(tmp_path / "file")
    assert first.put(data) == digest
    second = opened(tmp_path / "store")
    assert second.objects() == {digest: len(data)}
    assert all_of(second, digest) == data
    assert second.path(digest).read_bytes() == data


def test_what_is_not_here_is_said_so(tmp_path: Path) -> None:
    store = opened(tmp_path)
    nothing = Digest(bytes(32))
    for ask in (store.manifest, store.path, store.check, store.pin, store.missing):
        with pytest.raises(ModelMissing):
            ask(nothing)
    with pytest.raises(ModelMissing):
        store.put_chunk(nothing, 0, b"")
    store.drop(nothing)


def test_an_upload_goes_on_where_it_was_after_a_restart(tmp_path: Path) -> None:
    data = content(4 * CHUNK + 1)
    parts = chunks_of(data)
    store = opened(tmp_path)
    digest = store.begin(manifest_of(data))
    assert store.missing(digest) == (0, 1, 2, 3, 4)
    assert store.missing(digest, 2) == (0, 1)
    assert not store.put_chunk(digest, 4, parts[4])
    assert not store.put_chunk(digest, 1, parts[1])
    assert digest not in store
    again = opened(tmp_path)
    assert again.missing(digest) == (0, 2, 3)
    assert again.begin(manifest_of(data)) == digest
    assert [again.put_chunk(digest, index, parts[index]) for index in (0, 2, 1, 3)] == [False, False, False, True]
    assert again.missing(digest) == ()
    assert again.put_chunk(digest, 0, b"whatever comes after")
    assert all_of(again, digest) == data


def test_a_wall_clock_that_jumps_ends_no_upload(tmp_path: Path) -> None:
    data = content(2 * CHUNK, 3)
    store = opened(tmp_path)
    digest = store.begin(manifest_of(data))
    store.put_chunk(digest, 0, chunks_of(data)[0])
    os.utime(tmp_path / "incoming" / digest.hex() / "content", times=(0, 0))
    assert opened(tmp_path).missing(digest) == (1,)


def test_chunks_that_are_not_the_manifests_are_refused(tmp_path: Path) -> None:
    data = content(2 * CHUNK)
    parts = chunks_of(data)
    store = opened(tmp_path)
    digest = store.begin(manifest_of(data))
    for index, chunk in ((0, parts[1]), (1, parts[1][:-1]), (2, parts[0]), (-1, parts[1]), (0, b"")):
        with pytest.raises(BadUpload):
            store.put_chunk(digest, index, chunk)
    assert store.missing(digest) == (0, 1)


@pytest.mark.parametrize("at", [0, CHUNK, 2 * CHUNK + 2])
def test_damage_is_found_when_it_is_read_and_the_object_goes(tmp_path: Path, at: int) -> None:
    data = content(2 * CHUNK + 3)
    store = opened(tmp_path)
    digest = store.put(data)
    with store.path(digest).open("r+b") as file:
        file.seek(at)
        file.write(bytes([data[at] ^ 1]))
    with pytest.raises(ModelDamaged):
        store.check(digest)
    assert digest not in store
    assert store.used == 0
    assert all_of(store, store.put(data)) == data


def test_a_damaged_manifest_and_a_short_file_are_found_at_the_start(tmp_path: Path) -> None:
    store = opened(tmp_path)
    kept, torn, cut, strange = (store.put(content(CHUNK + 1, seed)) for seed in range(4))
    (tmp_path / "objects" / torn.hex() / "manifest").write_bytes(b"\xa1")
    with store.path(cut).open("r+b") as file:
        file.truncate(CHUNK)
    (tmp_path / "objects" / strange.hex()).rename(tmp_path / "objects" / "strange")
    (tmp_path / "incoming" / "leftover").mkdir()
    again = opened(tmp_path)
    assert set(again.objects()) == {kept}
    assert [path.name for path in (tmp_path / "objects").iterdir()] == [kept.hex()]
    assert list((tmp_path / "incoming").iterdir()) == []


def test_the_unused_go_first_and_the_pinned_stay(tmp_path: Path) -> None:
    store = opened(tmp_path, chunks=4)
    first, second, third, fourth = (store.put(content(CHUNK, seed)) for seed in range(4))
    store.pin(first)
    store.pin(first)
    store.unpin(first)
    store.path(second)
    assert store.used == 4 * CHUNK
    fifth = store.put(content(CHUNK, 5))
    assert set(store.objects()) == {first, second, fourth, fifth}
    for one in (second, fourth, fifth):
        store.pin(one)
    with pytest.raises(StoreFull, match="in use"):
        store.put(content(CHUNK, 6))
    store.unpin(first)
    store.put(content(CHUNK, 6))
    assert first not in store
    assert third not in store


def test_uploads_drop_nothing_before_their_bytes_come(tmp_path: Path) -> None:
    store = opened(tmp_path, chunks=4)
    kept = [store.put(content(CHUNK, seed)) for seed in range(3)]
    data = content(4 * CHUNK, 9)
    digest = store.begin(manifest_of(data))
    assert set(store.objects()) == set(kept)
    for index, chunk in enumerate(chunks_of(data)):
        assert store.used <= 4 * CHUNK
        store.put_chunk(digest, index, chunk)
    assert set(store.objects()) == {digest}
    with pytest.raises(StoreFull):
        store.begin(Manifest(5 * CHUNK, (Digest(bytes(32)),) * 5))


def test_who_brings_most_makes_place(tmp_path: Path) -> None:
    """By network first: names at one cost nothing."""
    store = opened(tmp_path, chunks=64)
    honest = [store.begin(manifest_of(content(CHUNK, seed)), (network, b"honest")) for seed, network in enumerate(("near", "far"))]
    for seed in range(2 * INCOMING):
        store.begin(manifest_of(content(CHUNK, 100 + seed)), ("far", b"liar"))
    for seed in range(2 * INCOMING):
        store.begin(manifest_of(content(CHUNK, 200 + seed)), ("crowd", str(seed).encode()))
    assert [store.missing(one) for one in honest] == [(0,), (0,)]
    assert len(list((tmp_path / "incoming").iterdir())) == INCOMING


def test_uploads_are_few_and_the_silent_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path, chunks=64)
    digests = [store.begin(manifest_of(content(CHUNK, seed))) for seed in range(INCOMING + 3)]
    assert len(list((tmp_path / "incoming").iterdir())) == INCOMING
    with pytest.raises(ModelMissing):
        store.missing(digests[0])
    assert store.missing(digests[-1]) == (0,)
    later = time.monotonic() + UPLOAD_KEPT_S + 1
    monkeypatch.setattr("nexus_edge.compute.store.time.monotonic", lambda: later)
    store.expire()
    assert list((tmp_path / "incoming").iterdir()) == []


def test_many_bring_the_same_model_at_once(tmp_path: Path) -> None:
    data = content(12 * CHUNK + 7)
    parts = chunks_of(data)
    store = opened(tmp_path)
    start = threading.Barrier(8)

    def bring(seed: int) -> bool:
        start.wait()
        digest = store.begin(manifest_of(data))
        order = random.Random(seed).sample(range(len(parts)), len(parts))
        return [store.put_chunk(digest, index, parts[index]) for index in order][-1]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(bring, range(8)))
    digest = manifest_digest(manifest_of(data))
    assert store.objects() == {digest: len(data)}
    assert all_of(store, digest) == data
    assert list((tmp_path / "incoming").iterdir()) == []


def test_nothing_is_missing_only_once_the_object_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)
    data = content(CHUNK + 1)
    digest = store.begin(manifest_of(data))
    store.put_chunk(digest, 0, data[:CHUNK])
    monkeypatch.setattr("nexus_edge.compute.store._sync", lambda _: time.sleep(0.1))
    with ThreadPoolExecutor(1) as threads:
        last = threads.submit(store.put_chunk, digest, 1, data[CHUNK:])
        while store.missing(digest):
            time.sleep(0.001)
        assert digest in store
        assert last.result()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.skipif(os.getuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_is_an_error_and_loses_nothing(small_disk: Path) -> None:
    store = opened(small_disk / "store")
    kept = store.put(content(2 * CHUNK, 1))
    data = content(8 * CHUNK, 2)
    digest = store.begin(manifest_of(data))
    with pytest.raises(StoreFull, match="No space left"):
        put_missing(store, data)
    assert digest not in store
    assert all_of(store, kept) == content(2 * CHUNK, 1)
    store.drop(kept)
    left = store.missing(digest)
    assert 0 < len(left) < 8
    with pytest.raises(StoreFull):
        put_missing(store, data)
    assert set(opened(small_disk / "store").objects()) == set()


KILLED = """
import random, sys, pathlib
from nexus_edge.compute.store import ModelStore
store = ModelStore(pathlib.Path(sys.argv[1]), 12 << 20)
random.seed(int(sys.argv[2]))
print("open", flush=True)
while True:
    store.put(random.Random(random.randrange(6)).randbytes(random.Random(7).randrange(1, 4 << 20)))
"""


def test_killed_at_any_point_it_holds_whole_objects_only(tmp_path: Path) -> None:
    whole = 0
    for round_ in range(12):
        command = [sys.executable, "-c", KILLED, str(tmp_path), str(round_)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"open\n"
            time.sleep(0.01 + 0.02 * round_)
            process.send_signal(signal.SIGKILL)
            process.wait()
        store = ModelStore(tmp_path, Bytes(12 << 20))
        for digest in store.objects():
            store.check(digest)
            whole += 1
        assert store.used <= 12 << 20
    assert whole > 12


def test_an_object_whose_files_somebody_removed_is_damaged_and_then_missing(tmp_path: Path) -> None:
    store = opened(tmp_path)
    digest = store.put(content(CHUNK))
    shutil.rmtree(tmp_path / "objects" / digest.hex())
    with pytest.raises(ModelDamaged):
        store.read(digest, 0, 1)
    with pytest.raises(ModelMissing):
        store.read(digest, 0, 1)
