"""Tables against the functions they approximate; the conformance tests compare them bit for bit with the kernels."""

import numpy as np
import pytest

from nexus_edge.proofs.importers import activations
from nexus_edge.proofs.importers import fixed_point as fp
from nexus_edge.proofs.importers.quantization import Quantization

X = Quantization("int8", 0.04, 10)


def test_exponential_is_close_to_the_real_one() -> None:
    a = -np.arange(0, 1 << 31, 98_765_431)
    np.testing.assert_allclose(fp.exp_on_negative_values(a, 5) / 2**31, np.exp(a / 2**26), atol=2e-8)


def test_logistic_and_tanh_are_close_to_the_real_ones() -> None:
    a = np.arange(-(1 << 31) + 1, 1 << 31, 98_765_431)
    np.testing.assert_allclose(fp.logistic(a, 4) / 2**31, 1 / (1 + np.exp(-a / 2**27)), atol=2e-8)
    np.testing.assert_allclose(fp.tanh(a, 4) / 2**31, np.tanh(a / 2**27), atol=4e-8)


@pytest.mark.parametrize("semantics", ["tflm", "tflite-2.14", "litert-2.3-ref"])
def test_tables_are_within_one_of_the_function(semantics: str) -> None:
    real = X.scale * activations.inputs(X)
    logistic = activations.logistic(X, Quantization("int8", 1 / 256, -128), semantics)
    tanh = activations.tanh(X, Quantization("int8", 1 / 128, 0), semantics)
    assert np.abs(logistic - np.clip(256 / (1 + np.exp(-real)) - 128, -128, 127)).max() <= 1
    assert np.abs(tanh - np.clip(128 * np.tanh(real), -128, 127)).max() <= 1


@pytest.mark.parametrize("semantics", ["tflm", "tflite-2.14", "litert-2.3-ref"])
def test_hard_swish_is_within_one_of_the_function(semantics: str) -> None:
    out = Quantization("int8", 0.03, -100)
    real = X.scale * activations.inputs(X)
    expected = np.clip(real * np.clip(real + 3, 0, 6) / 6 / out.scale + out.zero_point, -128, 127)
    assert np.abs(activations.hard_swish(X, out, semantics) - expected).max() <= 1


@pytest.mark.parametrize(
    ("function", "out"),
    [
        (activations.logistic, Quantization("int8", 1 / 128, -128)),
        (activations.logistic, Quantization("int8", 1 / 256, 0)),
        (activations.tanh, Quantization("int8", 1 / 256, 0)),
        (activations.tanh, Quantization("int8", 1 / 128, 1)),
    ],
)
def test_other_output_scales_are_undefined(function: object, out: Quantization) -> None:
    with pytest.raises(activations.Undefined):
        function(X, out, "tflm")  # type: ignore[operator]


def test_scales_out_of_the_kernels_range_are_undefined() -> None:
    with pytest.raises(activations.Undefined):
        activations.tanh(Quantization("int8", 1e-12, 0), Quantization("int8", 1 / 128, 0), "tflm")
    with pytest.raises(activations.Undefined):
        activations.hard_swish(Quantization("int8", 1.0, 0), Quantization("int8", 1e-6, 0), "tflm")
