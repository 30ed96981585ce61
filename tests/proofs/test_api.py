"""The Python interface: proofs of the demo digits, progress, cancellation, and what a statement says."""

import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from nexus_edge.data import demo_digits, demo_model
from nexus_edge.errors import BadInput, Cancelled, MalformedModel
from nexus_edge.proofs import (
    Model,
    Proof,
    ProofRejected,
    Proved,
    ProvingKey,
    RejectReason,
    Statement,
    VerifyingKey,
    commit_model,
    prove,
    verify,
)
from nexus_edge.types import Context, ProofMode
from tests.support import models

Image = NDArray[np.int8]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.from_tflite(demo_model(), "digits")


@pytest.fixture(scope="module")
def key(model: Model) -> ProvingKey:
    return commit_model(model)


@pytest.fixture(scope="module")
def plain(model: Model) -> ProvingKey:
    return commit_model(model, mode="plain")


@pytest.fixture(scope="module")
def image() -> Image:
    return demo_digits()[0][0]


@pytest.fixture(scope="module")
def proved(key: ProvingKey, image: Image) -> Proved:
    return prove(key, [image])


def test_the_key_survives_its_bytes(key: ProvingKey, proved: Proved, image: Image) -> None:
    loaded = VerifyingKey.from_bytes(key.verifying_key.to_bytes())
    assert loaded.digest == key.verifying_key.digest
    proof = Proof.from_bytes(proved.proof.to_bytes())
    verify(loaded, proof, inputs=[image], outputs=proved.outputs, input_openings=proved.input_openings)


def test_the_model_survives_its_bytes(model: Model, key: ProvingKey, image: Image) -> None:
    loaded = Model.from_bytes(model.to_bytes())
    assert np.array_equal(loaded.run([image])[0], model.run([image])[0])
    assert commit_model(loaded).verifying_key.digest == key.verifying_key.digest


@pytest.mark.parametrize("place", [3, 9, 30, 100, -1])
def test_a_damaged_model_is_refused_or_another_one(model: Model, key: ProvingKey, place: int) -> None:
    damaged = bytearray(model.to_bytes())
    damaged[place] ^= 1
    try:
        loaded = Model.from_bytes(bytes(damaged))
    except MalformedModel:
        return
    assert commit_model(loaded).verifying_key.digest != key.verifying_key.digest


def test_the_statement_names_what_was_proved(key: ProvingKey, proved: Proved, model: Model, image: Image) -> None:
    statement = proved.proof.statement
    assert statement.digest == key.verifying_key.digest
    assert statement.context == bytes(32)
    assert [len(commitment) for commitment in statement.inputs] == [32]
    (output,) = statement.outputs
    assert isinstance(output, np.ndarray)
    assert np.array_equal(output, model.run([image])[0])
    assert Statement.from_bytes(statement.to_bytes()).to_bytes() == statement.to_bytes()


def test_a_proof_is_bound_to_its_context(key: ProvingKey, image: Image) -> None:
    other = prove(key, [image], context=Context(bytes(range(32))))
    verify(key.verifying_key, other.proof, context=Context(bytes(range(32))))
    with pytest.raises(ProofRejected) as caught:
        verify(key.verifying_key, other.proof, context=Context(bytes(32)))
    assert caught.value.reason is RejectReason.CONTEXT


def test_a_statement_cannot_be_exchanged(key: ProvingKey, proved: Proved) -> None:
    other = prove(key, [demo_digits()[1][0]])
    with pytest.raises(ProofRejected):
        verify(key.verifying_key, Proof(other.proof.statement, proved.proof.body))


def test_clear_inputs_and_committed_outputs(key: ProvingKey, image: Image) -> None:
    proved = prove(key, [image], clear_inputs=True, commit_outputs=True)
    openings = proved.output_openings
    (stated,) = proved.proof.statement.inputs
    assert np.array_equal(stated, image)
    assert [len(commitment) for commitment in proved.proof.statement.outputs] == [32]
    verify(key.verifying_key, proved.proof, inputs=[image], outputs=proved.outputs, output_openings=openings)
    with pytest.raises(ProofRejected) as caught:
        verify(key.verifying_key, proved.proof, outputs=[proved.outputs[0] ^ 1], output_openings=openings)
    assert caught.value.reason is RejectReason.OUTPUT


def test_progress_names_the_phases_in_order(key: ProvingKey, image: Image) -> None:
    seen: list[tuple[str, float]] = []
    proved = prove(key, [image], progress=lambda phase, fraction: seen.append((phase, fraction)))
    assert list(dict.fromkeys(phase for phase, _ in seen)) == list(proved.phases_ms)
    assert all(0 <= fraction <= 1 for _, fraction in seen)


@pytest.mark.parametrize("calls", range(4))
def test_a_proof_can_be_cancelled(key: ProvingKey, image: Image, calls: int) -> None:
    answers: Iterator[bool] = iter([True] * calls + [False])
    with pytest.raises(Cancelled):
        prove(key, [image], progress=lambda phase, fraction: next(answers))  # noqa: ARG005 - one more call would raise StopIteration


def test_an_exception_of_the_callback_is_raised(key: ProvingKey, image: Image) -> None:
    def interrupt(phase: str, fraction: float) -> None:
        raise KeyboardInterrupt(phase, fraction)

    with pytest.raises(KeyboardInterrupt):
        prove(key, [image], progress=interrupt)


def test_other_threads_run_meanwhile(key: ProvingKey, image: Image) -> None:
    """Were the GIL held, another thread could run only just before and just after the native call: twice."""
    finished = threading.Event()
    ticks: list[float] = []

    def tick() -> None:
        while not finished.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0002)

    def ticks_during_a_proof() -> int:
        started = time.perf_counter()
        prove(key, [image], threads=1)
        ended = time.perf_counter()
        return len([when for when in ticks if started < when < ended])

    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        assert max(ticks_during_a_proof() for _ in range(30)) > 4
    finally:
        finished.set()
        ticker.join()


@pytest.mark.parametrize("bad", [[], [np.zeros((1, 8, 8, 1), np.uint8)], [np.zeros((1, 8, 8, 1), np.int8)] * 2])
def test_inputs_that_do_not_fit(key: ProvingKey, model: Model, bad: list[NDArray[np.int8]]) -> None:
    with pytest.raises(BadInput):
        model.run(bad)
    with pytest.raises(BadInput):
        prove(key, bad)


def test_float_outputs_are_compared_bit_for_bit() -> None:
    key = commit_model(Model.from_tflite(models.float_edges()))
    x = np.array([[0.31, -2.0, 1.77, 99.0]], np.float32)
    for committed in (False, True):
        proved = prove(key, [x], commit_outputs=committed)
        (y,) = proved.outputs
        check = partial(
            verify, key.verifying_key, proved.proof, input_openings=proved.input_openings, output_openings=proved.output_openings
        )
        check(inputs=[x], outputs=[y])
        check(inputs=[x + np.float32(0.001)], outputs=[y])  # quantises to the same integers
        for wrong in (np.nextafter(y, np.float32(1e9)), y + np.float32(0.1), np.full_like(y, np.nan)):
            with pytest.raises(ProofRejected) as caught:
                check(outputs=[wrong])
            assert caught.value.reason is RejectReason.OUTPUT


@pytest.mark.parametrize("mode", ["zk", "plain"])
def test_security_of_both_parameter_sets(model: Model, mode: ProofMode) -> None:
    assert commit_model(model, security=100, mode=mode).verifying_key.soundness()["bits"] >= 100
    assert commit_model(model, security=128, mode=mode).verifying_key.soundness()["bits"] >= 128


# The two modes


def test_plain_proofs_need_no_openings(plain: ProvingKey, image: Image) -> None:
    proved = prove(plain, [image], commit_outputs=True)
    assert proved.input_openings == [None]
    assert proved.output_openings == [None]
    verify(plain.verifying_key, proved.proof, inputs=[image], outputs=proved.outputs)
    with pytest.raises(ProofRejected) as caught:
        verify(plain.verifying_key, proved.proof, inputs=[image ^ 1])
    assert caught.value.reason is RejectReason.INPUT


def test_a_plain_commitment_is_recognised_and_a_hiding_one_is_not(key: ProvingKey, plain: ProvingKey, image: Image) -> None:
    again = [prove(plain, [image]).proof.statement.inputs for _ in range(2)]
    assert again[0] == again[1]
    again = [prove(key, [image]).proof.statement.inputs for _ in range(2)]
    assert again[0] != again[1]


def test_a_proof_of_one_mode_is_refused_under_the_other(key: ProvingKey, plain: ProvingKey, proved: Proved, image: Image) -> None:
    assert (key.verifying_key.mode, plain.verifying_key.mode) == ("zk", "plain")
    assert key.verifying_key.digest != plain.verifying_key.digest
    for other, proof in ((plain, proved.proof), (key, prove(plain, [image]).proof)):
        with pytest.raises(ProofRejected) as caught:
            verify(other.verifying_key, proof)
        assert caught.value.reason is RejectReason.STATEMENT
        digest = other.verifying_key.digest
        renamed = Statement.from_bytes(proof.statement.to_bytes()[:8] + digest + proof.statement.to_bytes()[40:])
        with pytest.raises(ProofRejected):
            verify(other.verifying_key, Proof(renamed, proof.body))


def pieces(data: bytes) -> set[bytes]:
    return {data[i : i + 16] for i in range(len(data) - 16)}


@pytest.mark.parametrize(("mode", "common"), [("zk", False), ("plain", True)])
def test_two_proofs_of_one_input_have_nothing_in_common(model: Model, image: Image, mode: ProofMode, common: bool) -> None:
    """With the weights in the key: rows of committed public weights are the same in all proofs."""
    key = commit_model(model, "inside", mode=mode)
    first, second = (pieces(prove(key, [image], commit_outputs=True).proof.body) for _ in range(2))
    assert bool(first & second) is common


def test_an_unknown_mode_is_refused(model: Model) -> None:
    with pytest.raises(BadInput, match="mode"):
        commit_model(model, mode=cast(ProofMode, "fast"))
