"""What has no exact meaning is refused, by a typed error that names operator and tensor."""

from collections.abc import Callable

import numpy as np
import pytest

from nexus_edge.errors import MalformedModel, ModelError, UnsupportedModel
from nexus_edge.proofs.importers import import_tflite
from tests.support.cases import ints
from tests.support.one_operator import CONVOLUTION, POOL, Quantized, binary, unary, with_constants
from tflite_writer import ModelWriter

Q = Quantized()
OTHER = Quantized(scale=0.06)


def _convolution(
    weights: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    batch: int = 1,
    out_batch: int = 1,
    computed: bool = False,
    **changes: object,
) -> bytes:
    m = ModelWriter()
    x = m.input("int8", [batch, 3, 3, 2], 0.1)
    options = {"scale": 0.1, "zero": 0, "axis": 0} | {k: v for k, v in changes.items() if k in ("scale", "zero", "axis")}
    array = np.ones((4, 1, 1, 2), np.int8) if weights is None else weights
    w = m.input("int8", array.shape, 0.1, name="w") if computed else m.constant(array, name="w", **options)  # type: ignore[arg-type]
    b = m.constant(np.zeros(4, np.int32) if bias is None else bias, 0.01, name="b")
    y = m.tensor("int8", [out_batch, 3, 3, 4], 0.1, name="y")
    m.add("CONV_2D", [x, w, b], y, **CONVOLUTION | {k: v for k, v in changes.items() if k in CONVOLUTION})
    return m.finish(y)


def _depthwise(multiplier: int) -> bytes:
    m = ModelWriter()
    x, w = m.input("int8", [1, 3, 3, 2], 0.1), m.constant(np.ones((1, 1, 1, 4), np.int8), 0.1, axis=3, name="w")
    y = m.tensor("int8", [1, 3, 3, 4], 0.1)
    m.add("DEPTHWISE_CONV_2D", [x, w, -1], y, depth_multiplier=multiplier, **CONVOLUTION)
    return m.finish(y)


def _fully_connected(bias_scale: float = 0.01, **options: int) -> bytes:
    m = ModelWriter()
    x, w = m.input("int8", [1, 4], 0.1), m.constant(np.ones((3, 4), np.int8), 0.1)
    b = m.constant(np.zeros(3, np.int32), bias_scale, name="b")
    y = m.tensor("int8", [1, 3], 0.1)
    m.add("FULLY_CONNECTED", [x, w, b], y, fused_activation_function=0, keep_num_dims=False, **options)
    return m.finish(y)


def _concatenation(scales: tuple[float, float], activation: int = 0) -> bytes:
    m = ModelWriter()
    parts = [m.input("int8", [1, 2], s, name=f"p{i}") for i, s in enumerate(scales)]
    y = m.tensor("int8", [1, 4], 0.1, name="y")
    m.add("CONCATENATION", parts, y, axis=1, fused_activation_function=activation)
    return m.finish(y)


def _pieces(number: int) -> bytes:
    m = ModelWriter()
    x, y = m.input("int8", [1], 0.1), m.tensor("int8", [number], 0.1, name="y")
    m.add("CONCATENATION", [x] * number, y, axis=0, fused_activation_function=0)
    return m.finish(y)


def _float_addition() -> bytes:
    m = ModelWriter()
    a, b, y = m.input("float32", [2]), m.input("float32", [2]), m.tensor("float32", [2])
    m.add("ADD", [a, b], y, fused_activation_function=0)
    return m.finish(y)


def _dequantized_relu() -> bytes:
    m = ModelWriter()
    x = m.input("int8", [2], 0.1)
    real = m.add("DEQUANTIZE", [x], m.tensor("float32", [2]))
    y = m.add("QUANTIZE", [real], m.tensor("int8", [2], 0.1))
    return m.finish(y)


def _tensor(**changes: object) -> bytes:
    m = ModelWriter()
    x = m.input("int8", [2, 2], 0.1, name="x")
    y = m.tensor(**{"dtype": "int8", "shape": [2, 2], "scale": 0.1, "name": "y"} | changes)  # type: ignore[arg-type]
    m.add("RELU", [x], y)
    return m.finish(y)


def _subgraphs() -> bytes:
    m = ModelWriter()
    x, y = m.input("int8", [2], 0.1), m.tensor("int8", [2], 0.1)
    m.add("RELU", [x], y)
    return m.finish(y, subgraphs=2)


def _twice() -> bytes:
    m = ModelWriter()
    x, y = m.input("int8", [2], 0.1), m.tensor("int8", [2], 0.1, name="y")
    m.add("RELU", [x], y)
    m.add("RELU6", [x], y)
    return m.finish(y)


def _use_before_definition() -> bytes:
    m = ModelWriter()
    x, late, y = m.input("int8", [2], 0.1), m.tensor("int8", [2], 0.1, name="late"), m.tensor("int8", [2], 0.1)
    m.add("ADD", [x, late], y, fused_activation_function=0)
    m.add("RELU", [x], late)
    return m.finish(y)


def _dynamic_reshape() -> bytes:
    m = ModelWriter()
    x, shape = m.input("int8", [2, 2], 0.1), m.input("int32", [1], name="shape")
    y = m.tensor("int8", [4], 0.1)
    m.add("RESHAPE", [x, shape], y)
    return m.finish(y)


def _per_channel_activation() -> bytes:
    m = ModelWriter()
    x = m.tensor("int8", [2, 2], [0.1, 0.2], 0, name="x", axis=1)
    m.inputs.append(x)
    y = m.tensor("int8", [2, 2], 0.1)
    m.add("RELU", [x], y)
    return m.finish(y)


def _huge_fill() -> bytes:
    """A constant that grows at import beyond every bound."""
    m = ModelWriter()
    x = m.constant(np.zeros((1, 1), np.int32))
    y = m.tensor("int32", [1 << 12, 1 << 11], name="y")
    m.add("PAD", [x, m.constant(np.array([[0, (1 << 12) - 1], [0, (1 << 11) - 1]], np.int32))], y)
    m.input("int8", [1], 0.1)
    return m.finish(y)


U, M = UnsupportedModel, MalformedModel
REFUSALS: list[tuple[str, Callable[[], bytes], type[ModelError], str, str]] = [
    ("operator without a lowering", lambda: unary("ELU", [4], Q, Q), U, "ELU", "y"),
    ("custom operator", lambda: unary("CUSTOM", [4], Q, Q), U, "CUSTOM", "y"),
    ("variable tensor", lambda: _tensor(variable=True), U, "RELU", "y"),
    ("sparse tensor", lambda: _tensor(sparse=True), U, "RELU", "y"),
    ("sub-byte tensor", lambda: _tensor(dtype="int4"), U, "RELU", "y"),
    ("int16 tensor", lambda: _tensor(dtype="int16"), U, "RELU", "y"),
    ("dynamic shape", lambda: _tensor(shape=[-1, 2]), U, "RELU", "y"),
    ("empty tensor", lambda: _tensor(shape=[0, 2]), U, "RELU", "y"),
    ("too many dimensions", lambda: _tensor(shape=[1] * 7), U, "RELU", "y"),
    ("too large", lambda: _tensor(shape=[1 << 13, 1 << 13]), U, "RELU", "y"),
    ("no quantisation", lambda: _tensor(scale=None), U, "RELU", "y"),
    ("zero point out of range", lambda: _tensor(zero=200), M, "RELU", "y"),
    ("scale zero", lambda: _tensor(scale=0.0), M, "RELU", "y"),
    ("scale infinite", lambda: _tensor(scale=float("inf")), M, "RELU", "y"),
    ("wrong output shape", lambda: _tensor(shape=[4]), M, "RELU", "y"),
    ("per-channel activation", _per_channel_activation, U, "input", "x"),
    ("defined twice", _twice, M, "RELU6", "y"),
    ("used before it is defined", _use_before_definition, M, "ADD", "late"),
    ("pool with unequal scales", lambda: unary("MAX_POOL_2D", [1, 2, 2, 1], Q, OTHER, [1, 1, 1, 1], **POOL), U, "MAX_POOL_2D", "y"),
    ("pool that drops half its batch", lambda: unary("AVERAGE_POOL_2D", [2, 2, 2, 1], Q, Q, [1, 1, 1, 1], **POOL), M, "AVERAGE_POOL_2D", "y"),
    ("RELU with unequal scales", lambda: unary("RELU", [4], Q, OTHER), U, "RELU", "y"),
    ("RELU6 with unequal scales", lambda: unary("RELU6", [4], Q, OTHER), U, "RELU6", "y"),
    ("TANH to another scale", lambda: unary("TANH", [4], Q, Q), U, "TANH", "y"),
    ("LOGISTIC to another scale", lambda: unary("LOGISTIC", [4], Q, Q), U, "LOGISTIC", "y"),
    ("SOFTMAX to another scale", lambda: unary("SOFTMAX", [1, 4], Q, Q, beta=1.0), U, "SOFTMAX", "y"),
    ("SOFTMAX without beta", lambda: unary("SOFTMAX", [1, 4], Q, Quantized(scale=1 / 256, zero=-128), beta=0.0), U, "SOFTMAX", "y"),
    ("CONCATENATION with unequal scales", lambda: _concatenation((0.1, 0.2)), U, "CONCATENATION", "p1"),
    ("CONCATENATION with an activation", lambda: _concatenation((0.1, 0.1), 1), U, "CONCATENATION", "y"),
    ("what the native module refuses", lambda: _pieces(4097), U, "CONCATENATION", "y"),
    ("float arithmetic", _float_addition, U, "ADD", "t0"),
    ("float between integers", _dequantized_relu, U, "QUANTIZE", "t1"),
    ("int8 weights with a zero point", lambda: _convolution(zero=3), U, "CONV_2D", "w"),
    ("computed weights", lambda: _convolution(computed=True), U, "CONV_2D", "w"),
    ("scales along another dimension", lambda: _convolution(scale=[0.1] * 4, axis=1), U, "CONV_2D", "w"),
    ("too few scales", lambda: _convolution(scale=[0.1] * 3), M, "CONV_2D", "w"),
    ("grouped convolution", lambda: _convolution(np.ones((4, 1, 1, 1), np.int8)), U, "CONV_2D", "w"),
    ("convolution of a batch to another", lambda: _convolution(batch=2, out_batch=3), M, "CONV_2D", "y"),
    ("stride zero", lambda: _convolution(stride_h=0), M, "CONV_2D", "y"),
    ("unknown padding", lambda: _convolution(padding=2), M, "CONV_2D", "y"),
    ("kernel larger than its input", lambda: _convolution(np.ones((4, 5, 1, 2), np.int8)), M, "CONV_2D", "y"),
    ("biases of another number", lambda: _convolution(bias=np.zeros(3, np.int32)), M, "CONV_2D", "b"),
    ("biases of another type", lambda: _convolution(bias=np.zeros(4, np.int64)), U, "CONV_2D", "b"),
    ("fused activation TANH", lambda: _convolution(fused_activation_function=4), U, "CONV_2D", "y"),
    ("accumulator out of int32", lambda: _convolution(bias=np.full(4, 2**31 - 1, np.int32)), U, "CONV_2D", "y"),
    ("another depth multiplier than the weights'", lambda: _depthwise(1), M, "DEPTHWISE_CONV_2D", "w"),
    ("biases of another scale", lambda: _fully_connected(0.1), U, "FULLY_CONNECTED", "b"),
    ("shuffled weights", lambda: _fully_connected(weights_format=1), U, "FULLY_CONNECTED", "t1"),
    ("shape known at run time only", _dynamic_reshape, U, "input", "shape"),
    ("constant too large", _huge_fill, U, "PAD", "y"),
    ("addition of other shapes", lambda: binary("ADD", [(1, 4), (1, 4)], [Q, Q, Quantized("uint8")]), U, "ADD", "t2"),
    ("addition to a tiny scale", lambda: binary("ADD", [(4,), (4,)], [Q, Q, Quantized(scale=1e-9)]), U, "ADD", "t2"),
    ("product that overflows", lambda: binary("MUL", [(4,), (4,)], [Q, Q, Quantized(scale=1e-9)]), U, "MUL", "t2"),
    ("no permutation", lambda: with_constants("TRANSPOSE", [2, 2], Q, [ints([0, 0])], [2, 2]), M, "TRANSPOSE", "y"),
    ("negative padding", lambda: with_constants("PAD", [2, 2], Q, [ints([[0, 0], [-1, 1]])], [2, 2]), M, "PAD", "y"),
    ("reshape to another size", lambda: with_constants("RESHAPE", [2, 2], Q, [ints([5])], [5]), M, "RESHAPE", "y"),
    ("reshape to zero", lambda: with_constants("RESHAPE", [2, 2], Q, [ints([-1, 0])], [4]), M, "RESHAPE", "y"),
    ("squeeze of no one", lambda: unary("SQUEEZE", [2, 2], Q, Q, [2], squeeze_dims=[0]), M, "SQUEEZE", "y"),
    ("mean over no axis", lambda: with_constants("MEAN", [2, 2], Q, [ints([2])], [2], keep_dims=False), M, "MEAN", "y"),
    ("empty slice", lambda: with_constants("STRIDED_SLICE", [4], Q, [ints([2]), ints([2]), ints([1])], [1]), M, "STRIDED_SLICE", "y"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "error", "kind", "tensor"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_refused(make: Callable[[], bytes], error: type[ModelError], kind: str, tensor: str) -> None:
    with pytest.raises(error) as caught:
        import_tflite(make(), "test")
    assert (caught.value.kind, caught.value.tensor) == (kind, tensor)
    assert caught.value.why
    # People read the same.
    assert kind in str(caught.value)
    assert repr(tensor) in str(caught.value)


def test_several_subgraphs_are_no_single_program() -> None:
    with pytest.raises(UnsupportedModel, match="several subgraphs"):
        import_tflite(_subgraphs(), "test")


def test_uint8_cannot_have_the_semantics_of_tflm() -> None:
    file = binary("ADD", [(4,), (4,)], [Quantized("uint8", 0.1, 128)] * 3)
    assert import_tflite(file, "test").describe()["semantics"] == "tflite-2.14"
    with pytest.raises(UnsupportedModel, match="no uint8 kernels"):
        import_tflite(file, "test", "tflm")


def test_rows_with_a_scale_for_each_channel() -> None:
    """The kernel of tflite-2.14 takes the wrong dimensions there; the others' do not."""
    m = ModelWriter()
    x, w = m.input("int8", [1, 2, 4], 0.1), m.constant(np.ones((3, 4), np.int8), [0.1, 0.2, 0.3], axis=0, name="w")
    y = m.tensor("int8", [1, 2, 3], 0.5)
    m.add("FULLY_CONNECTED", [x, w, -1], y, fused_activation_function=0, keep_num_dims=True)
    file = m.finish(y)
    for semantics in ("tflm", "litert-2.3-ref"):
        import_tflite(file, "test", semantics)
    with pytest.raises(UnsupportedModel, match="tensor 1 \\('w'\\)"):
        import_tflite(file, "test", "tflite-2.14")


def test_unknown_semantics() -> None:
    with pytest.raises(UnsupportedModel, match="one of tflm"):
        import_tflite(binary("ADD", [(4,), (4,)], [Q, Q, Q]), "test", "xnnpack")
