"""The models of this node by their digests: where they came from, their verifying keys, what jobs of them take, and jobs of them.

It runs what `nexus_edge.proofs.tasks` offers in child processes; it knows those functions by name, and nothing of proofs.
"""

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from blake3 import blake3

from nexus_edge.compute.errors import BadUpload, ChildFailed, Failure, ModelDamaged, ModelMissing, StoreError, StoreFull
from nexus_edge.compute.machine import memory_available
from nexus_edge.compute.pool import Pool
from nexus_edge.compute.process import Progress, Task
from nexus_edge.compute.record import RECORD_LIMIT, SHARE, Forecast, Measured, ModelRecord
from nexus_edge.compute.shelf import Shelf
from nexus_edge.compute.store import ASKED, ModelStore, manifest_digest
from nexus_edge.errors import FileError, MalformedModel
from nexus_edge.types import Bytes, Digest, ModelDigest, TensorCommitment
from nexus_edge.wire.cbor import Value
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.limits import CHUNK, CHUNKS, MIB, UPLOAD_KEPT_S
from nexus_edge.wire.messages import Manifest, Upload, UploadAnswer

RECORDS: Final = 4096  # models known, in memory and on the disk; a node offers at most 256
PREPARE_S: Final = 300.0  # the largest model that fits 2 GiB; a MobileNet takes a second
PREPARE_BYTES: Final = 256 * MIB
PREPARE_PER_BYTE: Final = 128
"""Memory to import and commit to a model: so much, and so many times its file. A MobileNet of 4 MiB takes some 300 MiB."""
LIMIT_PERCENT: Final = 150
LIMIT_BYTES: Final = 64 * MIB
"""Of a forecast, and beyond: what a job may take. Above admission's margin of 125 %, so that it ends what runs away and nothing else."""
SAVED_EVERY: Final = 16  # jobs: averages that a restart sets back by so many say nearly the same, and no answer waits for a file
FILE_LIMIT: Final = CHUNK * CHUNKS  # as for a program that a peer brings
KEEP: Final = Bytes(256 * MIB)
"""Of committed models in each child between jobs, unless it is set otherwise."""
INVITED: Final = 256  # peers that may upload a model now; the oldest invitation goes first, of those that nothing came of yet

REFUSED: Final = 256  # uploads that came to nothing, remembered so that they are not tried again at once
REFUSED_S: Final = 600.0  # for so long: the cause may have been this machine's, such as too little memory

_IMPORT: Final = ".import-"

T = TypeVar("T")


@dataclass(frozen=True)
class Job:
    """One job of a model: its input as the requester sent it, and what the proof is to be."""

    model: ModelDigest
    data: bytes = field(repr=False)
    seed: bytes = field(repr=False)
    openings: int
    expected: Digest
    """The input commitment that the lease names."""
    context: Digest
    commit_output: bool
    output_seed: bytes = field(repr=False)
    commitments: Sequence[TensorCommitment] = ()
    """What `expected` consists of, if that is at hand: the child computes it otherwise."""


@dataclass(frozen=True)
class Proved:
    """What a child made of a job. It has verified the proof."""

    output: bytes = field(repr=False)
    output_commitment: bytes | None
    statement: bytes = field(repr=False)
    proof: bytes = field(repr=False)
    run_us: int
    prove_us: int
    phases_us: Mapping[str, int]
    """Of all that progress named, in that order, but for reading the model: from the run to the check of the proof."""
    peak: Bytes


@dataclass
class _Invitation:
    params: str
    until: float
    program: Digest | None = None


class ModelLibrary:
    """Models in a folder, worked on in a pool. `await open()` first."""

    def __init__(self, folder: Path, store: ModelStore, pool: Pool, *, keys_limit: Bytes, keep: Bytes = KEEP) -> None:
        self.store = store
        self._folder = folder
        self._pool = pool
        self._keep = keep
        self._keys = Shelf(folder / "keys", keys_limit)
        self._shelved = Shelf(folder / "records", Bytes(RECORDS * RECORD_LIMIT), synced=True)
        self._shelved_measured = Shelf(folder / "measured", Bytes(RECORDS * RECORD_LIMIT))
        self._records: dict[ModelDigest, ModelRecord] = {}
        self._measured: dict[ModelDigest, Measured] = {}
        self._phases: dict[ModelDigest, tuple[tuple[str, int], ...]] = {}
        """Of the last proofs, averaged. Not kept: they only say how far a job is, and the next job shows them anew."""
        self._pinned: set[ModelDigest] = set()
        self._learned = 1000
        self._invited: dict[tuple[bytes, ModelDigest], _Invitation] = {}
        self._files: dict[tuple[bytes, str], ModelDigest] = {}
        """Models of files that were brought, by the files' digests and the parameters."""
        self._locks: WeakValueDictionary[bytes, asyncio.Lock] = WeakValueDictionary()
        self._refused: dict[tuple[ModelDigest, Digest, str], tuple[float, str]] = {}
        """What was brought for a model and did not make it, until when and why: by its content, or a liar could refuse others' models."""

    async def open(self) -> None:
        """Read what is known. A record that is damaged is forgotten: its model can be imported or fetched again."""
        await asyncio.to_thread(self._load)

    # What is here

    def records(self) -> list[ModelRecord]:
        """Models whose program is here."""
        return [record for record in self._records.values() if record.program in self.store]

    def get(self, model: ModelDigest) -> ModelRecord | None:
        """What is known of a model whose program is here."""
        record = self._records.get(model)
        return record if record is not None and record.program in self.store else None

    def forecast(self, model: ModelDigest) -> Forecast:
        """What a job of a model takes here. Raises `ModelMissing`."""
        return replace(self._record(model).forecast(self._measured.get(model)), phases_us=self._phases.get(model, ()))

    def measured(self, model: ModelDigest) -> Measured | None:
        """What jobs of a model took here, if there were any."""
        return self._measured.get(model)

    @property
    def learned_permille(self) -> int:
        """How much memory jobs took over what was expected of each, as an average; at least 1000."""
        return max(1000, self._learned)

    async def verifying_key(self, model: ModelDigest, *, anew: bool = False) -> bytes:
        """The verifying key, made anew if the one on the disk is gone or damaged, or if asked. Raises `ModelMissing` and what `import_file` raises."""
        async with self._lock(model):
            kept = None if anew else await asyncio.to_thread(self._keys.get, model)
            if kept is not None:
                return kept
            record = self._record(model)
            made = await self._prepare(self.store.path(record.program), "", record.params, record.name, record.program_bytes)
            if made["digest"] != model:
                await self._suspect(record)
                raise ModelDamaged("a model on the disk is damaged", model.hex(), "import it again")
            await asyncio.to_thread(self._keys.put, model, made["key"])
            return _typed(made, "key", bytes)

    def pin(self, model: ModelDigest) -> None:
        """Keep it until `unpin` is called as often. Raises `ModelMissing`."""
        self.store.pin(self._record(model).program)

    def unpin(self, model: ModelDigest) -> None:
        """Once for each `pin`."""
        record = self._records.get(model)
        if record is not None:
            self.store.unpin(record.program)

    # What comes and goes

    async def import_file(self, path: Path, params: str, name: str = "") -> ModelRecord:
        """Bring a `.tflite` file or a program here, to stay.

        Raises `FileError`, `MalformedModel`, `UnsupportedModel`, `BadInput` for unknown parameters, `StoreError` and `ChildFailed`.
        """
        size = await asyncio.to_thread(_size, path)
        if not size:
            raise MalformedModel("not a TensorFlow Lite model", "the file is empty")
        place = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=_IMPORT, dir=self._folder))
        try:
            made = await self._prepare(path.absolute(), str(place / "program"), params, name, size)
            program = await asyncio.to_thread(self.store.put_file, place / "program")
        finally:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        model = ModelDigest(_typed(made, "digest", bytes))
        async with self._lock(model):
            record = await self._admit(made, program, params, kept=True)
            self._pin_kept(record)
        return record

    async def import_content(self, content: AsyncIterator[bytes], params: str, name: str) -> ModelRecord:
        """Likewise for a file that comes in pieces. One that came before is known again, and costs its reading."""
        place = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix=_IMPORT, dir=self._folder))
        try:
            file = (await _received(content, place / "model"), params)
            known = self.get(self._files[file]) if file in self._files else None
            if known is not None:
                return known
            record = await self.import_file(place / "model", params, name)
        finally:
            await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        while len(self._files) >= RECORDS:
            self._files.pop(next(iter(self._files)))
        self._files[file] = record.model
        return record

    async def drop(self, model: ModelDigest) -> None:
        """Forget a model. Its program goes with the last model that is made of it."""
        record = self._records.pop(model, None)
        if record is None:
            return
        if model in self._pinned:
            self._pinned.discard(model)
            self.store.unpin(record.program)
        self._measured.pop(model, None)
        self._phases.pop(model, None)
        for shelf in (self._shelved, self._shelved_measured, self._keys):
            await asyncio.to_thread(shelf.drop, model)
        if all(other.program != record.program for other in self._records.values()):
            await asyncio.to_thread(self.store.drop, record.program)

    def manifest(self, model: ModelDigest) -> Manifest:
        """What a model's program consists of, for a worker that lacks it. Raises `ModelMissing` and `ModelDamaged`. Blocks."""
        return self.store.manifest(self._record(model).program)

    def chunk(self, model: ModelDigest, index: int) -> bytes:
        """One chunk of it, checked. Blocks."""
        return self.store.read(self._record(model).program, index * CHUNK, CHUNK)

    def invite(self, peer: bytes, model: ModelDigest, params: str) -> None:
        """Let a peer upload a model that a quote to it named as missing."""
        self._invited.pop((peer, model), None)
        while len(self._invited) >= INVITED:
            idle = (key for key, one in self._invited.items() if one.program is None)
            self._invited.pop(next(idle, next(iter(self._invited))))
        self._invited[(peer, model)] = _Invitation(params, time.monotonic() + UPLOAD_KEPT_S)

    async def upload(
        self,
        peer: bytes,
        model: ModelDigest,
        upload: Upload,
        turn: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        *,
        prefix: str = "",
    ) -> UploadAnswer:
        """A manifest or a chunk of a model that the peer was invited to bring; the last chunk makes it a model, if it is the one that was named.

        `prefix` is where the peer is: uploads are few at a time, and who has most of them makes place.

        `turn` is entered while a child works on it, and may raise to put that off: all of it is here then, and any part may be sent again.
        Cancelling stops the child's work. Raises `BadUpload`, `StoreFull`, `ModelMissing` where there is no invitation, and `ChildFailed`.
        """
        if self.get(model) is not None:
            return UploadAnswer((), True)
        invitation = self._invited.get((peer, model))
        if invitation is None or invitation.until < time.monotonic():
            raise ModelMissing("the upload is refused", "no quote to you named this model", "ask for a quote first")
        if upload.manifest is not None:
            needed, available = _prepare_memory(upload.manifest.size), memory_available()
            if needed > available:
                why = f"preparing it may take {needed // MIB} MiB of memory, {available // MIB} MiB are available"
                raise StoreFull("the upload is refused", why, "import it here, or wait until jobs have ended")
            self._check_refused(model, manifest_digest(upload.manifest), invitation.params)
            invitation.program = await asyncio.to_thread(self.store.begin, upload.manifest, (prefix, peer))
        if invitation.program is None:
            raise BadUpload("the upload is refused", "chunks come after their manifest")
        if upload.chunk is not None:
            await asyncio.to_thread(self.store.put_chunk, invitation.program, upload.chunk.index, upload.chunk.data)
        missing = await asyncio.to_thread(self.store.missing, invitation.program, min(ASKED, CHUNKS))
        if not missing:
            await self._receive(model, invitation.program, invitation.params, turn)
            self._invited.pop((peer, model), None)
        return UploadAnswer(missing, not missing)

    async def _receive(self, model: ModelDigest, program: Digest, params: str, turn: Callable[[], AbstractContextManager[None]]) -> None:
        async with self._lock(model):
            if self.get(model) is not None:
                return
            self._check_refused(model, program, params)
            size = (await asyncio.to_thread(self.store.manifest, program)).size
            with turn():
                try:
                    made = await self._prepare(self.store.path(program), "", params, "", size)
                except MalformedModel as broken:
                    await asyncio.to_thread(self.store.drop, program)
                    raise self._refuse(model, program, params, broken.why) from broken
                except ChildFailed as failed:
                    if failed.reason is not Failure.CANCELLED:
                        self._refuse(model, program, params, failed.why)
                    raise
            if made["digest"] != model:
                if all(record.program != program for record in self._records.values()):
                    await asyncio.to_thread(self.store.drop, program)
                raise self._refuse(model, program, params, f"it makes model {made['digest'].hex()} under {params}")
            await self._admit(made, program, params, kept=False)

    def _refuse(self, model: ModelDigest, program: Digest, params: str, why: str) -> BadUpload:
        """It did not make the model: do not try again at once."""
        self._refused.pop((model, program, params), None)
        while len(self._refused) >= REFUSED:
            self._refused.pop(next(iter(self._refused)))
        self._refused[(model, program, params)] = time.monotonic() + REFUSED_S, why
        return BadUpload("the upload is refused", why)

    def _check_refused(self, model: ModelDigest, program: Digest, params: str) -> None:
        until, why = self._refused.get((model, program, params), (0.0, ""))
        if time.monotonic() < until:
            raise BadUpload("the upload is refused", f"it was tried before: {why}")

    async def _prepare(self, source: Path, target: str, params: str, name: str, size: int) -> dict[str, Any]:
        arguments: dict[str, Value] = {"source": str(source), "target": target, "params": params, "name": name}
        memory = _prepare_memory(size)
        task = Task("nexus_edge.proofs.tasks:prepare", arguments, PREPARE_S, forecast=memory, limit=memory)
        made = dict((await self._pool.run(task)).result)
        if len(_typed(made, "digest", bytes)) != 32:
            raise _nonsense("digest")
        return made

    async def _admit(self, made: Mapping[str, Any], program: Digest, params: str, *, kept: bool) -> ModelRecord:
        model = ModelDigest(_typed(made, "digest", bytes))
        known = self._records.get(model)
        program, size = await self._one_program(known, program, _typed(made, "program_bytes", int))
        record = ModelRecord(
            model=model,
            program=program,
            program_bytes=size,
            params=params,
            name=_typed(made, "name", str),
            semantics=_typed(made, "semantics", str),
            described=_typed(made, "described", str),
            input_bytes=_typed(made, "input_bytes", int),
            output_bytes=_typed(made, "output_bytes", int),
            kept=kept or (known is not None and known.kept),
            run_us=_typed(made, "run_us", int),
            core_run_us=_typed(made, "core_run_us", int),
            prove_ms=_typed(made, "prove_ms", int),
            memory=Bytes(_typed(made, "memory", int)),
            proof_bytes=_typed(made, "proof_bytes", int),
        )
        await asyncio.to_thread(self._keys.put, model, _typed(made, "key", bytes))
        await asyncio.to_thread(self._shelved.put, model, record.to_bytes())
        self._records[model] = record
        await self._thin_out()
        return record

    async def _one_program(self, known: ModelRecord | None, program: Digest, size: int) -> tuple[Digest, int]:
        """Which program a model is kept as, and its size: those under several names are one model, and any of them serves."""
        if known is None or known.program == program:
            return program, size
        if known.program in self.store:
            if all(record.program != program for record in self._records.values()):
                await asyncio.to_thread(self.store.drop, program)
            return known.program, known.program_bytes
        self.store.move_pins(known.program, program)
        for record in [*self._records.values()]:  # under other parameters it is another model of the same program
            if record.program == known.program:
                moved = self._records[record.model] = replace(record, program=program, program_bytes=size)
                await asyncio.to_thread(self._shelved.put, record.model, moved.to_bytes())
        return program, size

    async def _thin_out(self) -> None:
        """Forget those that peers brought first, of what nobody uses now, until no more are known than may be."""
        for known in [*self._records.values()][:-1]:  # the last one is why
            if len(self._records) <= RECORDS:
                return
            if not known.kept and not self.store.is_pinned(known.program):
                await self.drop(known.model)

    # Jobs

    async def run(self, model: ModelDigest, data: bytes, *, deadline_s: float) -> bytes:
        """Run a model exactly: the output's integers. Raises `BadInput`, `ModelMissing`, `ModelDamaged` and `ChildFailed`."""
        record = self._record(model)
        arguments: dict[str, Value] = {**self._arguments(record), "data": data}
        return _typed(await self._work(record, "run", arguments, deadline_s, None), "output", bytes)

    async def prove(self, job: Job, progress: Progress | None = None, *, deadline_s: float) -> Proved:
        """Run and prove. Progress gets the prover's phases, and how many millionths of each are done.

        Raises `BadInput`, `ModelMissing`, `ModelDamaged`, `ProverError` and `ChildFailed`. Cancelling stops the child's work.
        """
        record = self._record(job.model)
        arguments: dict[str, Value] = {
            **self._arguments(record),
            "data": job.data,
            "seed": job.seed,
            "openings": job.openings,
            "expected": job.expected,
            "commitments": list(job.commitments),
            "context": job.context,
            "commit_output": job.commit_output,
            "output_seed": job.output_seed,
        }
        made = await self._work(record, "prove", arguments, deadline_s, progress)
        commitment = made.get("output_commitment")
        proved = Proved(
            output=_typed(made, "output", bytes),
            output_commitment=commitment if isinstance(commitment, bytes) else None,
            statement=_typed(made, "statement", bytes),
            proof=_typed(made, "proof", bytes),
            run_us=_typed(made, "run_us", int),
            prove_us=_typed(made, "prove_us", int),
            phases_us=_phases(_typed(made, "phases_us", list)),
            peak=made["peak"],
        )
        cores = (_typed(made, "core_run_us", int), _typed(made, "core_prove_us", int))
        before = dict(self._phases.get(record.model, ()))
        self._phases[record.model] = tuple((name, _averaged(before.get(name, us), us)) for name, us in proved.phases_us.items())
        await self._learn(record, Measured(1, proved.run_us, cores[0], proved.prove_us, cores[1], proved.peak))
        return proved

    async def _work(
        self, record: ModelRecord, function: str, arguments: Mapping[str, Value], deadline_s: float, progress: Progress | None
    ) -> dict[str, Any]:
        forecast = self.forecast(record.model).memory
        limit = Bytes(forecast * LIMIT_PERCENT // 100 + LIMIT_BYTES)
        task = Task(f"nexus_edge.proofs.tasks:{function}", arguments, deadline_s, forecast, limit)
        self.pin(record.model)
        try:
            answer = await self._pool.run(task, progress, kind=record.model)
        except MalformedModel as broken:
            await self._suspect(record)
            raise ModelDamaged("a model on the disk is damaged", broken.why, "import it again") from broken
        finally:
            self.unpin(record.model)
        return {**answer.result, "peak": answer.peak}

    async def _suspect(self, record: ModelRecord) -> None:
        """A program that does not make its model: drop it, whether or not its file changed."""
        try:
            await asyncio.to_thread(self.store.check, record.program)
            await asyncio.to_thread(self.store.drop, record.program)
        except StoreError:
            pass  # it is gone already

    async def _learn(self, record: ModelRecord, job: Measured) -> None:
        known = self._measured.get(record.model)
        expected = record.forecast(known).memory
        self._measured[record.model] = job if known is None else known.after(job)
        self._learned += (1000 * job.memory // max(1, expected) - self._learned) // SHARE
        measured = self._measured[record.model]
        if measured.jobs <= SHARE or measured.jobs % SAVED_EVERY == 0:
            with contextlib.suppress(StoreError):  # a full disk is no reason to lose a proof that is made
                await asyncio.to_thread(self._shelved_measured.put, record.model, measured.to_bytes())

    def _arguments(self, record: ModelRecord) -> dict[str, Value]:
        program = str(self.store.path(record.program))
        return {"program": program, "params": record.params, "model": record.model, "keep": self._keep}

    def _record(self, model: ModelDigest) -> ModelRecord:
        record = self.get(model)
        if record is None:
            raise ModelMissing("the model is not here", model.hex(), "import it")
        return record

    def _pin_kept(self, record: ModelRecord) -> None:
        """What its owner brought here stays: one pin for each model, whatever becomes of its file."""
        if record.model not in self._pinned:
            self.store.pin(record.program)
            self._pinned.add(record.model)

    def _lock(self, model: bytes) -> asyncio.Lock:
        lock = self._locks.get(model)
        if lock is None:
            lock = self._locks[model] = asyncio.Lock()
        return lock

    def _load(self) -> None:
        for rest in self._folder.glob(f"{_IMPORT}*"):
            shutil.rmtree(rest, ignore_errors=True)
        for name in self._shelved.names():
            data = self._shelved.get(name)
            try:
                record = None if data is None else ModelRecord.from_bytes(data)
            except BadObject:
                record = None
            if record is None or record.model != name:
                self._shelved.drop(name)
                continue
            self._records[record.model] = record
            if record.kept and record.program in self.store:
                self._pin_kept(record)
            try:
                measured = self._shelved_measured.get(name)
                if measured is not None:
                    self._measured[record.model] = Measured.from_bytes(measured)
            except BadObject:
                self._shelved_measured.drop(name)


def _prepare_memory(size: int) -> Bytes:
    return Bytes(PREPARE_BYTES + PREPARE_PER_BYTE * size)


def _typed(made: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A field of a child's answer: what the child read came from strangers."""
    value = made.get(name)
    if type(value) is not kind:
        raise _nonsense(name)
    return value


def _phases(made: Sequence[Any]) -> dict[str, int]:
    phases = {}
    for one in made:
        match one:
            case [str(name), int(us)] if us >= 0:
                phases[name] = us
            case _:
                raise _nonsense("phases_us")
    return phases


def _averaged(known: int, us: int) -> int:
    return known + (us - known) // SHARE


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as failed:
        raise FileError("the model cannot be read", f"{path}: {failed.strerror or failed}") from failed


async def _received(content: AsyncIterator[bytes], path: Path) -> bytes:
    """Write what comes, as far as a model may be large; its BLAKE3 digest."""
    digest, size = blake3(), 0
    try:
        with await asyncio.to_thread(path.open, "wb", 0) as file:
            async for piece in content:
                size += len(piece)
                if size > FILE_LIMIT:
                    raise FileError("the model is too large", f"a file has at most {FILE_LIMIT // MIB} MiB")
                digest.update(piece)
                await asyncio.to_thread(file.write, piece)
    except OSError as failed:
        raise StoreFull("the model cannot be kept", failed.strerror or str(failed), "make room on the disk") from failed
    return digest.digest()


def _nonsense(name: str) -> ChildFailed:
    return ChildFailed(Failure.CRASH, f"the child's answer makes no sense: {name}")
