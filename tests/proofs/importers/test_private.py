"""The private form through the importer: nothing of weights, biases and other constants of the arithmetic is in the program."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nexus_edge.data import demo_digits, demo_model
from nexus_edge.errors import OpeningError, ProofRejected, UnsupportedModel
from nexus_edge.proofs import Model, _native, commit_model, prove, verify
from nexus_edge.proofs.importers.schema import parse
from nexus_edge.types import PrivateForm
from tests.support.one_operator import Quantized, biased, binary
from tflite_writer import ModelWriter

PRIVATE = PrivateForm()
X = Quantized("int8", 0.05, 3)


def program(data: bytes, form: PrivateForm | None = PRIVATE) -> bytes:
    return Model.from_tflite(data, "model", private=form).native.program_bytes


def with_other_weights(data: bytes, seed: int) -> bytes:
    """The same file with random weights, and biases of their size."""
    random = np.random.default_rng(seed)
    graph, changed = parse(data), bytearray(data)
    for op in graph.operators:
        if op.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        for index in op.inputs[1:3]:
            old = graph.tensors[index].data
            assert old is not None
            raw = old.tobytes()
            assert data.count(raw) == 1
            limit = 60 if old.dtype == np.int8 else 500
            new = random.integers(-limit, limit, old.shape).astype(old.dtype)
            changed[data.find(raw) : data.find(raw) + len(raw)] = new.tobytes()
    return bytes(changed)


def with_constant(kind: str, values: NDArray[np.int8], zero: int = 0) -> bytes:
    """An elementwise operator of an input of shape (1, 2, 2, 3) and a constant."""
    m = ModelWriter()
    x = m.input("int8", [1, 2, 2, 3], X.scale, X.zero, name="x")
    c = m.constant(values, [0.04], zero)
    y = m.tensor("int8", [1, 2, 2, 3], 0.06, -4, name="y")
    m.add(kind, [x, c], y, fused_activation_function=0)
    return m.finish(y)


def test_models_of_one_shape_are_one_program() -> None:
    programs = {program(data) for data in (demo_model(), *(with_other_weights(demo_model(), seed) for seed in range(3)))}
    assert len(programs) == 1
    public = {program(data, None) for data in (demo_model(), with_other_weights(demo_model(), 0))}
    assert len(public) == 2


@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL"])
@pytest.mark.parametrize("zero", [0, 5])
@pytest.mark.parametrize("shape", [(1,), (3,), (1, 2, 2, 3)])
def test_constants_of_the_arithmetic_are_hidden(kind: str, zero: int, shape: tuple[int, ...]) -> None:
    size = int(np.prod(shape))
    choices: list[NDArray[np.int8]] = [
        np.full(shape, 7, np.int8),
        np.full(shape, -128, np.int8),
        np.resize(np.array([-128, 127, 0, 31, -5], np.int8), size).reshape(shape),
    ]
    models = [with_constant(kind, values, zero) for values in choices]
    assert len({program(data) for data in models}) == 1
    x = np.random.default_rng(1).integers(-128, 128, (1, 2, 2, 3)).astype(np.int8)
    for data in models:
        private, public = Model.from_tflite(data, private=PRIVATE), Model.from_tflite(data)
        np.testing.assert_array_equal(private.run([x])[0], public.run([x])[0])


def test_private_models_compute_the_same() -> None:
    private, public = Model.from_tflite(demo_model(), private=PRIVATE), Model.from_tflite(demo_model())
    for image, _ in demo_digits()[:20]:
        np.testing.assert_array_equal(private.run([image])[0], public.run([image])[0])


def test_weights_with_a_zero_point_are_refused() -> None:
    data = biased("FULLY_CONNECTED", "uint8", (0.05, 0.02, 0.1), [1, 2, 3])
    Model.from_tflite(data)
    with pytest.raises(UnsupportedModel, match="weights of a private model must be int8"):
        Model.from_tflite(data, private=PRIVATE)


def test_models_without_weights_are_refused() -> None:
    data = binary("ADD", [(1, 4), (1, 4)], [X, X, Quantized("int8", 0.1, 0)])
    with pytest.raises(UnsupportedModel, match="no weights to hide"):
        Model.from_tflite(data, private=PRIVATE)


def test_owners_choose_their_bounds() -> None:
    layers = len(described(PrivateForm())["log_bounds"])
    assert described(PrivateForm(15))["log_bounds"] == [15] * layers
    assert described(PrivateForm([16] * layers))["log_bounds"] == [16] * layers
    with pytest.raises(UnsupportedModel, match="choose 2"):
        described(PrivateForm(8))
    assert Model.from_tflite(demo_model()).describe()["log_bounds"] is None


def described(form: PrivateForm) -> dict[str, Any]:
    return Model.from_tflite(demo_model(), private=form).describe()


def test_private_models_are_registered_and_linked() -> None:
    key, other = (commit_model(Model.from_tflite(data, private=PRIVATE)) for data in (demo_model(), with_other_weights(demo_model(), 1)))
    registration, opened = key.native.register()
    assert [rows is None for rows in opened] == [False]
    _native.verify_registration(key.verifying_key.native, registration)
    again = key.native.committed_again(_native.Seed.fresh())
    link, opened = key.native.link([again])
    assert [rows is None for rows in opened] == [False, False]
    _native.verify_link(key.verifying_key.native, [again.verifying_key], link)
    with pytest.raises(_native.Rejected):
        _native.verify_registration(other.verifying_key.native, registration)
    with pytest.raises(_native.Rejected):
        _native.verify_link(key.verifying_key.native, [other.verifying_key.native], link)
    with pytest.raises(_native.ProgramError):
        key.native.link([other.native])


def test_private_models_are_proved() -> None:
    key, other = (commit_model(Model.from_tflite(data, private=PRIVATE)) for data in (demo_model(), with_other_weights(demo_model(), 1)))
    image, _ = demo_digits()[0]
    proved = prove(key, [image])
    proof = proved.proof
    with pytest.raises(ProofRejected, match="no verified registration"):
        verify(key.verifying_key, proof)
    registration, _ = key.native.register()
    _native.verify_registration(key.verifying_key.native, registration)
    verify(key.verifying_key, proof, inputs=[image], input_openings=proved.input_openings)
    with pytest.raises(ProofRejected):
        verify(other.verifying_key, proof)


def test_plain_proofs_would_show_private_weights() -> None:
    with pytest.raises(UnsupportedModel, match="plain proofs show"):
        commit_model(Model.from_tflite(demo_model(), private=PRIVATE), mode="plain")


def test_no_proof_of_private_weights_leaves_uncounted() -> None:
    key = commit_model(Model.from_tflite(demo_model(), private=PRIVATE))
    image, _ = demo_digits()[0]
    prove(key, [image])
    assert key.secret is not None
    assert key.secret.read().account.opened > 0
    key.secret = None
    with pytest.raises(OpeningError, match="private weights"):
        prove(key, [image])
