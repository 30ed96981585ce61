"""What the importer makes can be proved: every operator, not only run."""

import zlib

import numpy as np
import pytest

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
