"""Every operator with random shapes and quantisation, bit for bit against the runtimes' reference kernels."""

import zlib
from collections.abc import Callable

import numpy as np
import pytest

from nexus_edge.proofs.model import Model
from tests.support.agreement import assert_agrees
from tests.support.cases import CASES, Case
from tests.support.oracle import Oracle

MODELS = 40
SEMANTICS = [("tflm", "int8"), ("tflite-2.14", "uint8"), ("tflite-2.14", "int8"), ("litert-2.3-ref", "uint8"), ("litert-2.3-ref", "int8")]


def _cases(name: str, dtype: str) -> list[Case]:
    return [CASES[name](np.random.default_rng([zlib.crc32(name.encode()), seed]), dtype) for seed in range(MODELS)]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("semantics", "dtype"), SEMANTICS)
def test_operator_equals_the_reference_kernel(name: str, semantics: str, dtype: str, oracle: Callable[[str], Oracle]) -> None:
    runtime = oracle(semantics)
    for case in _cases(name, dtype):
        assert_agrees(Model.from_tflite(case.model, name, semantics), runtime, case.model, case.inputs)


@pytest.mark.parametrize("name", ["convolution", "network", "add"])
def test_semantics_follow_the_type(name: str) -> None:
    for dtype, semantics in (("int8", "tflm"), ("uint8", "tflite-2.14")):
        assert Model.from_tflite(_cases(name, dtype)[0].model, name).describe()["semantics"] == semantics
