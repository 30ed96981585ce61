"""What the importer makes can be proved: every operator, not only run."""

import zlib

import numpy as np
import pytest

from nexus_edge.errors import ProofRejected
from nexus_edge.proofs import commit_model, prove, verify
from nexus_edge.proofs.model import Model
from nexus_edge.types import ProofMode
from tests.support.cases import CASES


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_operator_is_proved(name: str, dtype: str) -> None:
    modes: tuple[ProofMode, ProofMode] = ("zk", "plain")
    for seed, mode in enumerate(modes):
        case = CASES[name](np.random.default_rng([zlib.crc32(name.encode()), seed]), dtype)
        model = Model.from_tflite(case.model, name)
        inputs = [array[-1] for array in case.inputs]
        key = commit_model(model, mode=mode)
        proved = prove(key, inputs)
        verify(key.verifying_key, proved.proof, inputs=inputs, outputs=proved.outputs, input_openings=proved.input_openings)
        for ours, output in zip(model.run(inputs), proved.outputs, strict=True):
            np.testing.assert_array_equal(output, ours, strict=True)


@pytest.mark.parametrize("name", ["average pool of a batch", "convolution of a batch", "depthwise of a batch", "max pool of a batch"])
def test_every_image_of_a_batch_counts(name: str) -> None:
    """One other value in the last image alone is another statement, of the input as of the output."""
    case = CASES[name](np.random.default_rng(4), "int8")
    model, inputs = Model.from_tflite(case.model, name), [case.inputs[0][-1].copy()]
    key = commit_model(model)
    proved = prove(key, inputs)
    outputs = [array.copy() for array in proved.outputs]
    for array in (inputs[0], outputs[0]):
        array.reshape(-1)[-1] ^= 1
        with pytest.raises(ProofRejected):
            verify(key.verifying_key, proved.proof, inputs=inputs, outputs=outputs, input_openings=proved.input_openings)
        array.reshape(-1)[-1] ^= 1
    verify(key.verifying_key, proved.proof, inputs=inputs, outputs=outputs, input_openings=proved.input_openings)
