"""The library of models, with real children: imported, offered, brought by peers, proved, and damaged."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from blockbuster import blockbuster_ctx

from nexus_edge.compute import library as library_module
from nexus_edge.compute.errors import BadUpload, ChildFailed, Failure, ModelDamaged, ModelMissing, StoreFull
from nexus_edge.compute.library import Job, ModelLibrary, Proved
from nexus_edge.compute.machine import Device
from nexus_edge.compute.pool import Pool
from nexus_edge.compute.record import Measured, ModelRecord
from nexus_edge.compute.shelf import Shelf
from nexus_edge.compute.store import ModelStore
from nexus_edge.data import demo_digits, demo_model
from nexus_edge.errors import BadInput, FileError, MalformedModel
from nexus_edge.proofs import Model, VerifyingKey
from nexus_edge.proofs.answers import verify_answer
from nexus_edge.proofs.wired import CommittedInputs, commit_inputs
from nexus_edge.types import Bytes, Context, Digest, ModelDigest
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import CHUNK, MIB
from nexus_edge.wire.messages import Chunk, Manifest, Upload

LEASE = Digest(b"\x11" * 32)
Turn = Callable[[], contextlib.AbstractContextManager[None]]
PEER, STRANGER = b"\x01" * 32, b"\x02" * 32


@contextlib.asynccontextmanager
async def libraries(*folders: Path, limit: int = 64 * MIB, keys: int = MIB) -> AsyncIterator[list[ModelLibrary]]:
    """One for each folder, all with one pool."""
    async with Pool([Device("cpu0", "cpu", "test", 2, Bytes(MIB))]) as pool:
        found = [ModelLibrary(folder, ModelStore(folder / "store", Bytes(limit)), pool, keys_limit=Bytes(keys)) for folder in folders]
        for library in found:
            await library.open()
        yield found


@contextlib.asynccontextmanager
async def library_in(folder: Path) -> AsyncIterator[ModelLibrary]:
    async with libraries(folder) as (library,):
        yield library


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "digits.tflite"
    path.write_bytes(demo_model())
    return path


async def inputs_for(library: ModelLibrary, model: ModelDigest, number: int = 0) -> CommittedInputs:
    key = VerifyingKey.from_bytes(await library.verifying_key(model))
    return commit_inputs(key, [demo_digits()[number][0]])


def job(model: ModelDigest, inputs: CommittedInputs) -> Job:
    return Job(model, inputs.data, inputs.seed, inputs.hand_out(1), inputs.inc, LEASE, commit_output=False, output_seed=b"")


async def proved(library: ModelLibrary, record: ModelRecord) -> Proved:
    return await library.prove(job(record.model, await inputs_for(library, record.model)), deadline_s=30)


async def bring(
    source: ModelLibrary, target: ModelLibrary, record: ModelRecord, peer: bytes = PEER, turn: Turn = contextlib.nullcontext
) -> bool:
    """As a requester does it: the manifest, then what is missing."""
    answer = await target.upload(peer, record.model, Upload(source.manifest(record.model), None), turn)
    while not answer.complete:
        index = answer.missing[0]
        answer = await target.upload(peer, record.model, Upload(None, Chunk(index, source.chunk(record.model, index))), turn)
    return answer.complete


@pytest.mark.asyncio
async def test_an_imported_model_is_proved_and_verified(tmp_path: Path, source: Path) -> None:
    seen: list[tuple[str, int]] = []
    async with library_in(tmp_path / "library") as library:
        record = await library.import_file(source, "zk-100")
        assert library.get(record.model) == record
        assert (record.name, record.params, record.input_bytes, record.kept) == ("digits", "zk-100", 64, True)
        inputs = await inputs_for(library, record.model)
        made = await library.prove(job(record.model, inputs), lambda *step: seen.append(step), deadline_s=30)
        key = VerifyingKey.from_bytes(await library.verifying_key(record.model))
        verify_answer(key, record.model, "zk-100", Context(LEASE), inputs.inc, made.output, made.proof)
        (expected,) = Model.from_tflite(demo_model()).run([demo_digits()[0][0]])
        assert made.output == expected.tobytes()
        assert await library.run(record.model, inputs.data, deadline_s=30) == made.output
    assert [phase for phase, ppm in seen if ppm == 0][:4] == ["load", "execute", "witness", "commit"]
    assert seen[-1][0] == "verify"


async def pieces(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


@pytest.mark.asyncio
async def test_a_model_that_comes_in_pieces_is_imported_once(tmp_path: Path, source: Path) -> None:
    async with library_in(tmp_path / "library") as library:
        same = await library.import_file(source, "zk-100")
        record = await library.import_content(pieces(demo_model()), "zk-100", "digits")
        assert (record.model, record.program) == (same.model, same.program)
        library._pool.run = None  # type: ignore[method-assign, assignment]  # no child is needed for what is known
        assert await library.import_content(pieces(demo_model(), 77), "zk-100", "digits") == record
    assert not list((tmp_path / "library").glob(".import-*"))


@pytest.mark.asyncio
async def test_of_a_model_that_cannot_be_kept_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_edge.compute.library.FILE_LIMIT", 4000)
    async with library_in(tmp_path / "library") as library:
        with pytest.raises(FileError, match="too large"):
            await library.import_content(pieces(bytes(4001)), "zk-100", "zeros")
        with pytest.raises(MalformedModel):
            await library.import_content(pieces(bytes(4000)), "zk-100", "zeros")
        with pytest.raises(MalformedModel, match="empty"):
            await library.import_content(pieces(b""), "zk-100", "nothing")
        assert library.records() == []
    assert not list((tmp_path / "library").glob(".import-*"))


@pytest.mark.asyncio
async def test_nothing_of_it_blocks_the_loop(tmp_path: Path, source: Path) -> None:
    async with library_in(tmp_path / "library") as library:
        record = await library.import_file(source, "zk-100")
        inputs = await inputs_for(library, record.model)
        with blockbuster_ctx():
            await library.import_file(source, "plain-100")
            await library.prove(job(record.model, inputs), deadline_s=30)
            await library.verifying_key(record.model)


@pytest.mark.asyncio
async def test_one_file_is_one_program_and_a_model_for_each_parameter_set(tmp_path: Path, source: Path) -> None:
    async with library_in(tmp_path / "library") as library:
        first = await library.import_file(source, "zk-100")
        second = await library.import_file(source, "plain-100")
        assert first.model != second.model
        assert first.program == second.program
        assert len(library.store.objects()) == 1
        await library.drop(first.model)
        assert library.records() == [second]
        assert (await proved(library, second)).output
        await library.drop(second.model)
        assert library.store.objects() == {}
        again = await library.import_file(source, "zk-100")
        await library.drop(again.model)
        junk = library.store.put(Path(source).read_bytes())
        assert set(library.store.objects()) == {junk}
        with pytest.raises(ModelMissing):
            await library.verifying_key(second.model)


@pytest.mark.asyncio
async def test_a_model_may_have_any_name(tmp_path: Path, source: Path) -> None:
    async with library_in(tmp_path / "library") as library:
        first = await library.import_file(source, "zk-100", "digits")
        plain = await library.import_file(source, "plain-100", "digits")
        again = await library.import_file(source, "zk-100", "numerals")
        assert (again.model, again.program, again.name) == (first.model, first.program, "numerals")
        assert set(library.store.objects()) == {first.program}, "one copy of it"
        # Its program is lost while somebody uses it, and comes back under another name: whoever kept the one keeps the other.
        library.pin(first.model)
        library.store.drop(first.program)
        assert library.get(first.model) is None
        back = await library.import_file(source, "zk-100", "other numerals")
        assert (back.model, back.name) == (first.model, "other numerals")
        assert back.program != first.program
        assert set(library.store.objects()) == {back.program}
        assert [record.program for record in library.records()] == [back.program, back.program], "of both parameter sets"
        for record in (back, plain):
            assert (await proved(library, record)).output
        library.unpin(first.model)
        assert library.store.is_pinned(back.program), "its owner's"
        await library.drop(back.model)
        assert library.store.is_pinned(back.program)
        await library.drop(plain.model)
        assert not library.store.is_pinned(back.program)
        assert library.store.objects() == {}
    async with library_in(tmp_path / "library") as library:
        assert library.records() == []


@pytest.mark.asyncio
async def test_measurements_replace_forecasts_and_last(tmp_path: Path, source: Path) -> None:
    async with library_in(tmp_path / "library") as library:
        record = await library.import_file(source, "zk-100")
        before = library.forecast(record.model)
        made = await proved(library, record)
        after = library.forecast(record.model)
        assert before.prove_us == 1000 * record.prove_ms
        assert (after.run_us, after.prove_us, after.memory) == (made.run_us, made.prove_us, made.peak)
        assert library.learned_permille >= 1000
        assert after.phases_us == tuple(made.phases_us.items())
        assert [name for name, _ in after.phases_us] == ["execute", "witness", "commit", "lookups", "contractions", "opening", "verify"]
    async with library_in(tmp_path / "library") as again:
        assert again.get(record.model) == record
        assert again.forecast(record.model) == replace(after, phases_us=())
        assert (await proved(again, record)).output == made.output


@pytest.mark.asyncio
async def test_a_model_comes_from_a_peer_in_chunks(tmp_path: Path, source: Path) -> None:
    async with libraries(tmp_path / "mine", tmp_path / "theirs") as (mine, theirs):
        record = await mine.import_file(source, "zk-100")
        with pytest.raises(ModelMissing, match="no quote"):
            await bring(mine, theirs, record)
        theirs.invite(PEER, record.model, "zk-100")
        with pytest.raises(ModelMissing):
            await bring(mine, theirs, record, STRANGER)
        assert await bring(mine, theirs, record)
        theirs.invite(STRANGER, record.model, "zk-100")
        assert await bring(mine, theirs, record, STRANGER)
        received = theirs.get(record.model)
        assert received is not None
        assert (received.kept, received.program) == (False, record.program)
        inputs = await inputs_for(mine, record.model)
        made = await theirs.prove(job(record.model, inputs), deadline_s=30)
        key = VerifyingKey.from_bytes(await mine.verifying_key(record.model))
        verify_answer(key, record.model, "zk-100", Context(LEASE), inputs.inc, made.output, made.proof)


@pytest.mark.asyncio
async def test_who_asks_for_many_models_ends_nobodys_upload(tmp_path: Path, source: Path) -> None:
    async with libraries(tmp_path / "mine", tmp_path / "theirs") as (mine, theirs):
        record = await mine.import_file(source, "zk-100")
        theirs.invite(PEER, record.model, "zk-100")
        await theirs.upload(PEER, record.model, Upload(mine.manifest(record.model), None))
        for number in range(2 * library_module.INVITED):
            theirs.invite(STRANGER, ModelDigest(number.to_bytes(32, "big")), "zk-100")
        assert len(theirs._invited) == library_module.INVITED
        assert await bring(mine, theirs, record)


@pytest.mark.asyncio
async def test_models_that_peers_bring_do_not_pile_up(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library_module, "RECORDS", 2)
    async with libraries(tmp_path / "mine", tmp_path / "theirs") as (mine, theirs):
        models = [await mine.import_file(source, params) for params in ("zk-100", "plain-100", "zk-128")]
        assert len(mine.records()) == 3  # what its owner brought stays
        for record in models:
            theirs.invite(PEER, record.model, record.params)
            await bring(mine, theirs, record)
        assert [record.model for record in theirs.records()] == [record.model for record in models[1:]]
        assert len(theirs._shelved.names()) == 2
        inputs = await inputs_for(mine, models[1].model)
        assert (await theirs.prove(job(models[1].model, inputs), deadline_s=30)).output


@pytest.mark.asyncio
async def test_a_full_disk_loses_no_proof_that_is_made(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with library_in(tmp_path / "library") as library:
        record = await library.import_file(source, "zk-100")

        def full(*_: object) -> None:
            raise StoreFull("a file of the models cannot be written", "no space left on device")

        monkeypatch.setattr(library._shelved_measured, "put", full)
        assert (await proved(library, record)).output
        assert library.measured(record.model) is not None


@pytest.mark.asyncio
async def test_several_peers_bring_one_model_at_once(tmp_path: Path, source: Path) -> None:
    async with libraries(tmp_path / "mine", tmp_path / "theirs") as (mine, theirs):
        record = await mine.import_file(source, "zk-100")
        peers = [bytes([number]) * 32 for number in range(6)]
        for peer in peers:
            theirs.invite(peer, record.model, "zk-100")
        assert await asyncio.gather(*(bring(mine, theirs, record, peer) for peer in peers)) == [True] * 6
        assert len(theirs.records()) == 1


@pytest.mark.asyncio
async def test_an_upload_of_something_else_is_refused_and_forgotten(tmp_path: Path, source: Path) -> None:
    async with libraries(tmp_path / "mine", tmp_path / "theirs") as (mine, theirs):
        record = await mine.import_file(source, "zk-100")
        wanted = ModelDigest(b"\x07" * 32)
        theirs.invite(PEER, wanted, "zk-100")
        await theirs.upload(PEER, wanted, Upload(mine.manifest(record.model), None))
        with pytest.raises(BadUpload, match="it makes model"):
            await theirs.upload(PEER, wanted, Upload(None, Chunk(0, mine.chunk(record.model, 0))))
        theirs.invite(PEER, record.model, "zk-128")
        with pytest.raises(BadUpload):
            await bring(mine, theirs, record)
        theirs.invite(PEER, record.model, "zk-100")
        with pytest.raises(BadUpload, match="after their manifest"):
            await theirs.upload(PEER, record.model, Upload(None, Chunk(0, b"x")))
        with pytest.raises(StoreFull):
            await theirs.upload(PEER, record.model, Upload(Manifest(65 * MIB, (Digest(bytes(32)),) * 65), None))
        junk = theirs.store.put(b"NXEMODEL, but not really")
        with pytest.raises(BadUpload):
            await theirs.upload(PEER, record.model, Upload(theirs.store.manifest(junk), None))
        assert theirs.records() == []
        assert theirs.store.objects() == {}
        assert await bring(mine, theirs, record)


@pytest.mark.asyncio
async def test_damage_to_a_program_fails_the_job_and_removes_the_model(tmp_path: Path, source: Path) -> None:
    async with library_in(tmp_path / "library") as library:
        record = await library.import_file(source, "zk-100")
        inputs = await inputs_for(library, record.model)
        path = library.store.path(record.program)
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ModelDamaged):
            await library.prove(job(record.model, inputs), deadline_s=30)
        assert library.get(record.model) is None
        again = await library.import_file(source, "zk-100")
        assert (again.model, again.program) == (record.model, record.program)
        assert (await proved(library, record)).output


@pytest.mark.asyncio
async def test_a_damaged_key_is_made_anew(tmp_path: Path, source: Path) -> None:
    async with library_in(tmp_path / "library") as library:
        record = await library.import_file(source, "zk-100")
        key = await library.verifying_key(record.model)
        file = tmp_path / "library" / "keys" / record.model.hex()
        file.write_bytes(file.read_bytes()[:-1])
        assert await library.verifying_key(record.model) == key
        assert file.read_bytes()[32:] == key
        file.unlink()
        assert await asyncio.gather(*(library.verifying_key(record.model) for _ in range(4))) == [key] * 4


@pytest.mark.asyncio
async def test_without_room_on_the_disk_keys_are_made_each_time(tmp_path: Path, source: Path) -> None:
    async with libraries(tmp_path / "library", keys=0) as (library,):
        record = await library.import_file(source, "zk-100")
        assert await library.verifying_key(record.model) == await library.verifying_key(record.model)
        assert not list((tmp_path / "library" / "keys").iterdir())


@pytest.mark.asyncio
async def test_damaged_records_are_forgotten(tmp_path: Path, source: Path) -> None:
    place = tmp_path / "library"
    async with library_in(place) as library:
        record = await library.import_file(source, "zk-100")
        await proved(library, record)
    shelf = Shelf(place / "measured", Bytes(MIB))
    shelf.put(record.model, b"\x00")
    async with library_in(place) as library:
        assert library.get(record.model) == record
        assert library.measured(record.model) is None
    Shelf(place / "records", Bytes(MIB)).put(record.model, b"\xa0")
    async with library_in(place) as library:
        assert library.records() == []


@pytest.mark.asyncio
async def test_too_little_memory_fails_the_job_with_both_numbers(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_edge.compute.library.LIMIT_PERCENT", 5)
    monkeypatch.setattr("nexus_edge.compute.library.LIMIT_BYTES", 0)
    async with library_in(tmp_path / "library") as library:
        record = await library.import_file(source, "zk-100")
        inputs = await inputs_for(library, record.model)
        with pytest.raises(ChildFailed, match=r"forecast \d+ MiB, allowed \d+ MiB") as caught:
            await library.prove(job(record.model, inputs), deadline_s=30)
        assert caught.value.reason is Failure.MEMORY
        monkeypatch.setattr("nexus_edge.compute.library.LIMIT_PERCENT", 150)
        assert (await library.prove(job(record.model, inputs), deadline_s=30)).output


@pytest.mark.asyncio
async def test_a_cancelled_proof_stops_and_the_next_one_is_made(tmp_path: Path, source: Path) -> None:
    async with library_in(tmp_path / "library") as library:
        record = await library.import_file(source, "zk-100")
        inputs = await inputs_for(library, record.model)
        begun = asyncio.Event()
        asked = asyncio.create_task(library.prove(job(record.model, inputs), lambda *_: begun.set(), deadline_s=30))
        await begun.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert library.measured(record.model) is None
        assert (await library.prove(job(record.model, inputs), deadline_s=30)).output


@pytest.mark.asyncio
async def test_what_a_killed_import_left_goes_at_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / "library" / ".import-abc"
    left.mkdir(parents=True)
    (left / "program").write_bytes(b"half")
    async with library_in(tmp_path / "library"):
        assert not left.exists()


@pytest.mark.asyncio
async def test_bad_files_are_said_to_be_bad(tmp_path: Path) -> None:
    (tmp_path / "bad.tflite").write_bytes(b"nothing")
    async with library_in(tmp_path / "library") as library:
        with pytest.raises(MalformedModel):
            await library.import_file(tmp_path / "bad.tflite", "zk-100")
        with pytest.raises(FileError):
            await library.import_file(tmp_path / "nowhere.tflite", "zk-100")
        with pytest.raises(BadInput, match="parameter set"):
            await library.import_file(tmp_path / "bad.tflite", "zk-1")
        assert library.records() == []
    assert [path.name for path in (tmp_path / "library").iterdir() if path.name.startswith(".import")] == []


@pytest.mark.asyncio
async def test_a_pinned_model_is_not_evicted_and_an_unpinned_one_is(tmp_path: Path, source: Path) -> None:
    async with libraries(tmp_path / "mine", tmp_path / "theirs", limit=2 * MIB) as (mine, theirs):
        record = await mine.import_file(source, "zk-100")
        theirs.invite(PEER, record.model, "zk-100")
        await bring(mine, theirs, record)
        theirs.pin(record.model)
        with pytest.raises(StoreFull):
            theirs.store.put(os.urandom(2 * CHUNK))
        theirs.unpin(record.model)
        theirs.store.put(os.urandom(2 * CHUNK))
        assert theirs.get(record.model) is None
        with pytest.raises(StoreFull):
            mine.store.put(os.urandom(2 * CHUNK))


def test_averages_follow_jobs_and_memory_rises_at_once() -> None:
    first = Measured(1, 1000, 1000, 8000, 16000, Bytes(100))
    slower = first.after(Measured(1, 2000, 1000, 16000, 16000, Bytes(200)))
    assert slower == Measured(2, 1250, 1000, 10000, 16000, Bytes(200))
    assert slower.after(first).memory == 175
    assert Measured.from_bytes(slower.to_bytes()) == slower
    for wrong in (b"", b"\xa0", b"\xa1\x61v\x01", slower.to_bytes()[:-1]):
        with pytest.raises(BadObject):
            Measured.from_bytes(wrong)


def test_a_shelf_keeps_to_its_bound_and_finds_damage(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "shelf", Bytes(3 * 132))
    names = [bytes([number]) * 32 for number in range(4)]
    for age, name in enumerate(names[:3]):
        shelf.put(name, bytes(100))
        os.utime(tmp_path / "shelf" / name.hex(), (age, age))
    assert shelf.get(names[0]) == bytes(100)
    shelf.put(names[3], bytes(100))
    assert sorted(shelf.names()) == [names[0], names[2], names[3]]
    shelf.put(names[1], bytes(1000))
    assert shelf.get(names[1]) is None
    path = tmp_path / "shelf" / names[0].hex()
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    assert shelf.get(names[0]) is None
    assert not path.exists()
    assert np.all([len(name) == 32 for name in shelf.names()])


@pytest.mark.asyncio
async def test_what_made_no_model_is_not_tried_again_at_once(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its content: whoever brings something else under a model's name keeps nobody from bringing the model."""
    async with libraries(tmp_path / "mine", tmp_path / "theirs") as (mine, theirs):
        record = await mine.import_file(source, "zk-100")
        monkeypatch.setattr(library_module, "REFUSED", 2)
        for number in (1, 2, 3):
            junk = theirs.store.put(b"NXEMODEL, but not really" + bytes([number]))
            manifest = theirs.store.manifest(junk)
            theirs.invite(PEER, record.model, "zk-100")
            with pytest.raises(BadUpload):
                await theirs.upload(PEER, record.model, Upload(manifest, None))

        def no_turn() -> contextlib.nullcontext[None]:
            raise AssertionError("a child is asked again")

        with pytest.raises(BadUpload, match="it was tried before"):
            await theirs.upload(PEER, record.model, Upload(manifest, None), no_turn)
        assert len(theirs._refused) == 2
        assert await bring(mine, theirs, record)


@pytest.mark.asyncio
async def test_an_upload_that_has_to_wait_for_its_turn_is_kept_and_goes_on(tmp_path: Path, source: Path) -> None:
    turns: list[str] = []

    def refused() -> contextlib.nullcontext[None]:
        turns.append("refused")
        raise StoreFull("not now", "somebody else's turn")

    @contextlib.contextmanager
    def taken() -> Iterator[None]:
        turns.append("begun")
        yield
        turns.append("ended")

    async with libraries(tmp_path / "mine", tmp_path / "theirs") as (mine, theirs):
        record = await mine.import_file(source, "zk-100")
        theirs.invite(PEER, record.model, "zk-100")
        with pytest.raises(StoreFull, match="somebody else's turn"):
            await bring(mine, theirs, record, turn=refused)
        assert theirs.records() == []
        again = Upload(mine.manifest(record.model), None)
        assert (await theirs.upload(PEER, record.model, again, taken)).complete
        assert (await theirs.upload(PEER, record.model, again, refused)).complete
        assert turns == ["refused", "begun", "ended"]


@pytest.mark.asyncio
async def test_whoever_goes_away_while_its_model_is_prepared_gives_its_turn_back(tmp_path: Path, source: Path) -> None:
    begun, turns = asyncio.Event(), []

    @contextlib.contextmanager
    def taken() -> Iterator[None]:
        begun.set()
        try:
            yield
        finally:
            turns.append("ended")

    async with libraries(tmp_path / "mine", tmp_path / "theirs") as (mine, theirs):
        record = await mine.import_file(source, "zk-100")
        theirs.invite(PEER, record.model, "zk-100")
        bringing = asyncio.create_task(bring(mine, theirs, record, turn=taken))
        await begun.wait()
        bringing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await bringing
        assert turns == ["ended"]
        assert theirs.records() == []
        assert await bring(mine, theirs, record)  # its going away says nothing against the model
