"""Every shared int8 model against TFLM on at least 100 inputs (uniform, normal, all-min, all-max, real ones), and proved in both modes."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nexus_edge.proofs import VerifyingKey, commit_model, prove, verify
from nexus_edge.proofs.model import Model
from nexus_edge.types import ProofMode
from tests.support.agreement import assert_agrees
from tests.support.oracle import Oracle
from tests.support.real_inputs import real_inputs
from tests.support.shared import MODELS

INPUTS = 100


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_model_equals_tflm(path: Path, oracle: Callable[[str], Oracle]) -> None:
    file = path.read_bytes()
    started = time.perf_counter()
    model = Model.from_tflite(file, path.stem)
    assert time.perf_counter() - started < 10
    (port,) = model.inputs
    rng = np.random.default_rng(7)
    shape = (INPUTS // 2, *port.shape)
    made = [
        rng.integers(-128, 128, shape).astype(np.int8),
        np.clip(rng.normal(port.zero_point, rng.uniform(2, 60, (INPUTS // 2, *[1] * len(port.shape))), shape), -128, 127).astype(np.int8),
        np.stack([np.full(port.shape, value, np.int8) for value in (-128, 127, port.zero_point)]),
    ]
    real = real_inputs(path.stem, port)
    assert_agrees(model, oracle("tflm"), file, [np.concatenate([*made, np.stack(real)] if real else made)])


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_model_is_proved(path: Path, oracle: Callable[[str], Oracle]) -> None:
    file = path.read_bytes()
    model = Model.from_tflite(file, path.stem)
    (port,) = model.inputs
    real = real_inputs(path.stem, port)
    x = real[0] if real else np.random.default_rng(8).integers(-128, 128, port.shape).astype(np.int8)
    (wanted,) = oracle("tflm").run(file, [x[None]])
    modes: tuple[ProofMode, ...] = ("zk", "plain")
    for mode in modes:
        key = commit_model(model, mode=mode)
        proved = prove(key, [x])
        np.testing.assert_array_equal(proved.outputs[0], wanted[0], strict=True)
        read = VerifyingKey.from_bytes(key.verifying_key.to_bytes())
        verify(read, proved.proof, inputs=[x], outputs=[wanted[0]], input_openings=proved.input_openings)
