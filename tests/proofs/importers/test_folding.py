"""Operators on constants, computed at import: the model's only trace of them is the shape or the constant that results."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tflite
from numpy.typing import NDArray

from nexus_edge.errors import MalformedModel, UnsupportedModel
from nexus_edge.proofs.importers.folding import fold
from nexus_edge.proofs.importers.graph import Operator, Option, TensorInfo
from nexus_edge.proofs.model import Model
from tests.support.cases import ints
from tflite_writer import ModelWriter

M23 = np.arange(6, dtype=np.int32).reshape(2, 3)


def _fold(
    kind: str, inputs: Sequence[NDArray[Any]], shape: Sequence[int], dtype: str = "int32", options: dict[str, Option] | None = None
) -> NDArray[Any]:
    operator = Operator(0, kind, tuple(range(len(inputs))), (9,), options or {})
    return fold(operator, inputs, TensorInfo(9, "out", dtype, tuple(shape)))


@pytest.mark.parametrize(
    ("kind", "inputs", "options", "expected"),
    [
        ("ADD", [ints([1, 2]), ints(3)], {}, ints([4, 5])),
        ("SUB", [ints([1, 2]), ints([3, 3])], {}, ints([-2, -1])),
        ("MUL", [ints([[2], [3]]), ints([4, 5])], {}, ints([[8, 10], [12, 15]])),
        ("CONCATENATION", [ints([1]), ints([2, 3])], {"Axis": 0}, ints([1, 2, 3])),
        ("EXPAND_DIMS", [ints([1, 2]), ints(0)], {}, ints([[1, 2]])),
        ("GATHER", [ints([5, 6, 7]), ints([2, 0])], {}, ints([7, 5])),
        ("PACK", [ints(1), ints(-1)], {"Axis": 0}, ints([1, -1])),
        ("PAD", [ints([1, 2]), ints([[1, 0]])], {}, ints([0, 1, 2])),
        ("PADV2", [ints([1, 2]), ints([[0, 1]]), ints([9])], {}, ints([1, 2, 9])),
        ("REDUCE_PROD", [M23, ints([1])], {"KeepDims": 0}, ints([0, 60])),
        ("RESHAPE", [M23, ints([3, 2])], {}, M23.reshape(3, 2)),
        ("SQUEEZE", [M23[None]], {}, M23),
        ("STRIDED_SLICE", [M23, ints([0, 2]), ints([2, 0]), ints([1, -1])], {}, M23[0:2, 2:0:-1]),
        ("STRIDED_SLICE", [ints([7, 8]), ints([1]), ints([2]), ints([1])], {"ShrinkAxisMask": 1}, ints(8)),
        ("TRANSPOSE", [M23, ints([1, 0])], {}, M23.T),
    ],
)
def test_folded(kind: str, inputs: list[NDArray[Any]], options: dict[str, Option], expected: NDArray[Any]) -> None:
    np.testing.assert_array_equal(_fold(kind, inputs, expected.shape, options=options), expected, strict=True)


def test_casts_between_integers() -> None:
    np.testing.assert_array_equal(_fold("CAST", [ints([1, -1])], [2], "int64"), np.array([1, -1]), strict=True)
    with pytest.raises(MalformedModel, match="does not fit"):
        _fold("CAST", [np.array([1 << 40])], [1], "int32")


@pytest.mark.parametrize(
    ("kind", "inputs", "shape"),
    [
        ("ADD", [ints([1, 2]), ints([1, 2, 3])], [3]),
        ("GATHER", [ints([5]), ints([1])], [1]),
        ("PACK", [ints(1), ints([1])], [2]),
        ("PAD", [ints([1]), ints([[-1, 1]])], [1]),
        ("RESHAPE", [ints([1, 2])], [3]),
        ("STRIDED_SLICE", [ints([1]), ints([0]), ints([1]), ints([0])], [1]),
        ("TRANSPOSE", [M23, ints([0, 0])], [2, 3]),
        ("MUL", [ints([1])], [1]),
        ("ADD", [ints([1]), ints([1])], [2]),
    ],
)
def test_nonsense(kind: str, inputs: list[NDArray[Any]], shape: list[int]) -> None:
    with pytest.raises(MalformedModel):
        _fold(kind, inputs, shape)


def test_only_integer_arithmetic_is_folded() -> None:
    with pytest.raises(UnsupportedModel):
        _fold("MUL", [np.ones(2, np.float32)] * 2, [2], "float32")
    with pytest.raises(UnsupportedModel):
        _fold("CONV_2D", [ints([1])], [1])


def test_flatten_by_a_computed_shape() -> None:
    """The batch from SHAPE, the rest as a product, both packed: what Keras exports."""
    m = ModelWriter()
    x = m.input("int8", [1, 2, 3], 0.1)
    shape = m.add("SHAPE", [x], m.tensor("int32", [3]), out_type=tflite.TensorType.INT32)
    tail = m.add("STRIDED_SLICE", [shape, *(m.constant(ints([v])) for v in (1, 3, 1))], m.tensor("int32", [2]))
    product = m.add("REDUCE_PROD", [tail, m.constant(ints([0]))], m.tensor("int32", []), keep_dims=False)
    packed = m.add("PACK", [m.constant(ints(-1)), product], m.tensor("int32", [2]), values_count=2, axis=0)
    y = m.add("RESHAPE", [x, packed], m.tensor("int8", [1, 6], 0.1))
    model = Model.from_tflite(m.finish(y), "flatten")
    values = np.arange(6, dtype=np.int8).reshape(1, 2, 3)
    np.testing.assert_array_equal(model.run([values])[0], values.reshape(1, 6), strict=True)


def test_weights_that_are_moved_at_import() -> None:
    m = ModelWriter()
    x = m.input("int8", [1, 2], 1.0)
    stored = m.constant(np.array([[1, 2, 3], [4, 5, 6]], np.int8), 1.0)
    weights = m.add("TRANSPOSE", [stored, m.constant(ints([1, 0]))], m.tensor("int8", [3, 2], 1.0))
    y = m.add("FULLY_CONNECTED", [x, weights, -1], m.tensor("int8", [1, 3], 1.0), fused_activation_function=0, keep_num_dims=False)
    model = Model.from_tflite(m.finish(y), "transposed weights")
    assert model.run([np.array([[10, 1]], np.int8)])[0].tolist() == [[14, 25, 36]]
