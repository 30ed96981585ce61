"""Models, proofs and verification as the market sees them: over the model library, child processes, and the verifier."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final

from nexus_edge.compute import ChildFailed, Failure, ModelLibrary, ModelRecord, StoreError, StoreFull
from nexus_edge.compute.errors import BadUpload, ModelMissing
from nexus_edge.compute.library import Job
from nexus_edge.errors import BadInput, MalformedModel, ProofRejected
from nexus_edge.market.admission import Demand
from nexus_edge.market.preparing import Rations
from nexus_edge.market.quoting import Forecast
from nexus_edge.market.running import Answer, Died, Order
from nexus_edge.proofs import VerifyingKey
from nexus_edge.proofs.answers import verify_answer
from nexus_edge.proofs.parameters import ParameterSet
from nexus_edge.proofs.wired import commit_inputs, input_commitments, read_tensors, without_float_edges
from nexus_edge.transport import Caller
from nexus_edge.types import Bytes, Context, Digest, ModelDigest, NodeId, TensorCommitment
from nexus_edge.wire.digests import input_commitment
from nexus_edge.wire.limits import OUTPUT, PROOF
from nexus_edge.wire.messages import InputUpload, Manifest, Upload, UploadAnswer
from nexus_edge.wire.objects import ProofNotice, Result
from nexus_edge.wire.refusals import Code, Refusal

KEYS: Final = 32
"""Loaded verifying keys: some hundred KiB each, loaded again within milliseconds."""
OPENINGS: Final = 1
"""Proofs that a worker may make of a job's input: the one that is ordered."""


class Workshop:
    """What this node can do with models, for both sides of the market."""

    def __init__(self, library: ModelLibrary, slots: int, deadline_s: float) -> None:
        self.slots = slots
        self._library = library
        self._deadline_s = deadline_s
        self._rations = Rations()
        self._keys: OrderedDict[ModelDigest, VerifyingKey] = OrderedDict()

    async def key(self, model: ModelDigest) -> VerifyingKey:
        """The verifying key of a model that is here. Raises `ModelMissing` and what making it anew raises."""
        if model in self._keys:
            self._keys.move_to_end(model)
            return self._keys[model]
        try:
            key = await asyncio.to_thread(VerifyingKey.from_bytes, await self._library.verifying_key(model))
        except ProofRejected:  # a former version wrote it: nobody's fault, and none of its bytes are needed
            try:
                key = await asyncio.to_thread(VerifyingKey.from_bytes, await self._library.verifying_key(model, anew=True))
            except ProofRejected as broken:
                raise StoreError("the model has no key here", str(broken)) from broken
        self._keys[model] = key
        if len(self._keys) > KEYS:
            self._keys.popitem(last=False)
        return key

    # The worker's side

    def forecast(self, model: ModelDigest, params: str, sem: str) -> Forecast | None:
        """What a job takes; None for a model that is not here. Raises a refusal for parameters or semantics that are not the model's."""
        try:
            ParameterSet.parse(params)
        except BadInput as unknown:
            raise Refusal(Code.MODEL_REFUSED, unknown.why) from None
        record = self._library.get(model)
        if record is None:
            return None
        if (params, sem) != (record.params, record.semantics):
            raise Refusal(Code.MODEL_REFUSED, f"this model is of {record.params} and {record.semantics}, not of {params} and {sem}")
        takes = self._library.forecast(model)
        return Forecast(
            run_ms=_ms(takes.run_us),
            prove_ms=_ms(takes.prove_us),
            core_run_ms=_ms(takes.core_run_us),
            core_prove_ms=_ms(takes.core_prove_us),
            memory=takes.memory,
            input_bytes=record.input_bytes,
            phases_us=takes.phases_us,
        )

    def demand(self, model: ModelDigest) -> Demand:
        """What an admitted job of a model takes; nothing if it has left, which a pin prevents."""
        try:
            takes = self._library.forecast(model)
        except ModelMissing:
            return Demand(Bytes(0), 0)
        return Demand(takes.memory, _ms(takes.run_us + takes.prove_us))

    async def commitments(self, model: ModelDigest, upload: InputUpload) -> tuple[TensorCommitment, ...]:
        """The commitments to an input, in the model's order. Raises a `bad-input` refusal if it is not one of the model's."""
        key = await self.key(model)
        try:
            return await asyncio.to_thread(input_commitments, key, upload.data, upload.seed)
        except BadInput as misfit:
            raise Refusal(Code.BAD_INPUT, misfit.why) from None

    def pin(self, model: ModelDigest) -> None:
        """Keep it while a lease is open. Raises a refusal if it has left."""
        try:
            self._library.pin(model)
        except ModelMissing:
            raise Refusal(Code.MODEL_MISSING, "the model has left: ask again") from None

    def unpin(self, model: ModelDigest) -> None:
        """Once for each `pin`."""
        self._library.unpin(model)

    def invite(self, peer: NodeId, model: ModelDigest, params: str) -> None:
        """Let a peer upload what a quote to it named as missing."""
        self._library.invite(peer, model, params)

    async def put(self, caller: Caller, line: int, digest: Digest, upload: Upload) -> UploadAnswer:
        """Take a part of a model from a caller with such a line; the last part prepares it, when it is the caller's turn. Raises a refusal."""
        try:
            turn = partial(self._rations.turn, caller, line)
            return await self._library.upload(caller.peer, ModelDigest(digest), upload, turn, prefix=caller.prefix)
        except ModelMissing as uninvited:
            raise Refusal(Code.NOT_YOURS, uninvited.why) from None
        except StoreFull as full:
            raise Refusal(Code.BUSY, full.why, retry_ms=60_000) from None
        except BadUpload as bad:
            raise Refusal(Code.MODEL_REFUSED, bad.why) from None
        except (ChildFailed, StoreError, MalformedModel) as failed:
            raise Refusal(Code.MODEL_REFUSED, str(failed)) from None

    async def prove(self, order: Order, progress: Callable[[str, int], None]) -> Answer:
        """Run and prove in a child. Raises `Died` and `BadInput`."""
        job = Job(
            model=order.model,
            data=order.upload.data,
            seed=order.upload.seed,
            openings=order.upload.openings,
            expected=order.expected,
            commitments=order.commitments,
            context=order.context,
            commit_output=order.commit_output,
            output_seed=order.output_seed,
        )
        try:
            proved = await self._library.prove(job, progress, deadline_s=self._deadline_s)
        except ChildFailed as failed:
            if failed.reason is Failure.CANCELLED:
                raise asyncio.CancelledError from None
            raise Died(failed.what, failed.why, again=failed.reason is Failure.CRASH) from None
        return Answer(
            output=proved.output,
            output_commitment=proved.output_commitment,
            statement=proved.statement,
            proof=proved.proof,
            run_ms=_ms(proved.run_us),
            prove_ms=_ms(proved.prove_us),
            peak=proved.peak,
        )

    # The requester's side

    def record(self, model: ModelDigest) -> ModelRecord | None:
        """What is known of a model that is here."""
        return self._library.get(model)

    async def commit(self, model: ModelDigest, data: bytes) -> tuple[Digest, InputUpload]:
        """A fresh commitment to an input, and what a worker needs to prove about it once. Raises `BadInput`."""
        key = without_float_edges(await self.key(model))

        def commit() -> tuple[Digest, InputUpload]:
            made = commit_inputs(key, read_tensors(key.inputs, data, "input"))
            return input_commitment(made.commitments), InputUpload(made.data, made.seed, OPENINGS)

        return await asyncio.to_thread(commit)

    async def verifying_key(self, model: ModelDigest) -> bytes:
        """The key's bytes: what others need to check an answer."""
        return (await self.key(model)).to_bytes()

    def answer_bytes(self, model: ModelDigest) -> int:
        """About how long output and proof of an answer are together; the most that they may be for a model that is not here."""
        record = self.record(model)
        return OUTPUT + PROOF if record is None else record.output_bytes + record.proof_bytes

    async def verify(
        self,
        model: ModelDigest,
        params: str,
        inc: Digest,
        result: Result,
        notice: ProofNotice,
        output: bytes,
        proof: bytes,
        seed: bytes | None,
    ) -> None:
        """Raise `ProofRejected` unless the proof shows this output of this model on this input for this lease."""
        key = await self.key(model)
        commitment = None if seed is None else result.outc
        await asyncio.to_thread(
            verify_answer, key, model, params, Context(result.lease), inc, output, proof, statement=notice.stmt, outc=commitment, output_seed=seed
        )  # fmt: skip

    async def manifest(self, model: ModelDigest) -> Manifest:
        """What a model consists of, for a worker that lacks it."""
        return await asyncio.to_thread(self._library.manifest, model)

    async def chunks(self, model: ModelDigest, indexes: Sequence[int]) -> AsyncIterator[tuple[int, bytes]]:
        """Its chunks."""
        for index in indexes:
            yield index, await asyncio.to_thread(self._library.chunk, model, index)


def _ms(us: int) -> int:
    return -(-us // 1000)
