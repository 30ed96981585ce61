"""Operators on constants, computed at import: shape arithmetic, and moving constant data about."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nexus_edge.proofs.importers.graph import Operator, TensorInfo
from nexus_edge.proofs.importers.shapes import broadcast, strided_slice

Array = NDArray[Any]

MAX_FOLDED = 1 << 22
"""Elements of a folded constant: operators on constants may not blow up what the file holds."""


def fold(op: Operator, inputs: Sequence[Array], out: TensorInfo) -> Array:
    """The value of an operator whose inputs are all constant, of the declared type and shape."""
    if op.kind not in FOLDERS:
        raise op.unsupported("its inputs are all constant, and this operator is not folded at import", out)
    if prod(out.dims) > MAX_FOLDED:
        raise op.unsupported(f"its constant output is larger than {MAX_FOLDED} elements", out)
    try:
        with np.errstate(all="ignore"):
            result = np.asarray(FOLDERS[op.kind](op, inputs, out))
    except (ValueError, IndexError, TypeError, OverflowError, np.exceptions.AxisError) as error:
        raise op.malformed(f"its constant inputs make no sense: {error}", out) from error
    if result.shape != out.dims:
        raise op.malformed(f"its output has shape {list(result.shape)} but is declared as {list(out.dims)}", out)
    if result.dtype != np.dtype(out.dtype):
        raise op.malformed(f"its output has type {result.dtype} but is declared as {out.dtype}", out)
    return result


def _elementwise(function: Callable[[Array, Array], Array]) -> Callable[[Operator, Sequence[Array], TensorInfo], Array]:
    def apply(op: Operator, inputs: Sequence[Array], out: TensorInfo) -> Array:
        first, second = _arguments(op, inputs, 2)
        if out.dtype not in ("int32", "int64") or op.integer("FusedActivationFunction") != 0:
            raise op.unsupported("only integer arithmetic is folded", out)
        if broadcast(first.shape, second.shape) != out.dims:
            raise ValueError("the shapes do not fit")
        return function(first, second)

    return apply


def _arguments(op: Operator, inputs: Sequence[Array], count: int) -> Sequence[Array]:
    if len(inputs) != count:
        raise op.malformed(f"{len(inputs)} inputs instead of {count}")
    return inputs


def _cast(op: Operator, inputs: Sequence[Array], out: TensorInfo) -> Array:
    (x,) = _arguments(op, inputs, 1)
    if x.dtype.kind not in "iu" or out.dtype not in ("int32", "int64"):
        raise op.unsupported("only casts between int32 and int64 are folded", out)
    result = x.astype(out.dtype)
    if np.any(result != x):
        raise ValueError("a value does not fit")
    return result


def _concatenation(op: Operator, inputs: Sequence[Array], out: TensorInfo) -> Array:
    axis = op.integer("Axis")
    if sum(x.size for x in inputs) != prod(out.dims) or op.integer("FusedActivationFunction") != 0:
        raise ValueError("the sizes do not add up")
    return np.concatenate(inputs, axis)


def _expand_dims(op: Operator, inputs: Sequence[Array], out: TensorInfo) -> Array:
    return _arguments(op, inputs, 2)[0].reshape(out.dims)


def _gather(op: Operator, inputs: Sequence[Array], out: TensorInfo) -> Array:
    x, indices = _arguments(op, inputs, 2)
    if op.integer("BatchDims") != 0 or x.ndim != 1 or indices.dtype.kind != "i" or indices.size > MAX_FOLDED:
        raise op.unsupported("only gathers from vectors are folded", out)
    if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < len(x):
        raise ValueError("an index is out of range")
    return np.asarray(x[indices])


def _pack(op: Operator, inputs: Sequence[Array], out: TensorInfo) -> Array:
    if sum(x.size for x in inputs) != prod(out.dims):
        raise ValueError("the sizes do not add up")
    return np.stack(inputs, op.integer("Axis"))


def _pad(_op: Operator, inputs: Sequence[Array], out: TensorInfo) -> Array:
    x, paddings = inputs[0], inputs[1]
    if out.dtype in ("int8", "uint8") and len(inputs) < 3 and len(out.zero_points) != 1:
        raise ValueError("the padding value is not defined")
    fill = inputs[2].reshape(-1)[0] if len(inputs) == 3 else out.zero_points[0] if out.zero_points else 0
    if paddings.shape != (x.ndim, 2) or np.any(paddings < 0) or [*(np.array(x.shape) + paddings.sum(1))] != [*out.dims]:
        raise ValueError("the paddings do not fit")
    return np.pad(x, [(int(a), int(b)) for a, b in paddings], constant_values=fill)


def _product(op: Operator, inputs: Sequence[Array], out: TensorInfo) -> Array:
    x, axes = _arguments(op, inputs, 2)
    if out.dtype not in ("int32", "int64") or axes.size > x.ndim:
        raise op.unsupported("only integer products are folded", out)
    return np.asarray(np.prod(x, axis=tuple(int(a) for a in axes.reshape(-1)), keepdims=bool(op.integer("KeepDims")), dtype=x.dtype))


def _reshape(op: Operator, inputs: Sequence[Array], out: TensorInfo) -> Array:
    if not inputs:
        raise op.malformed("it has no input")
    return inputs[0].reshape(out.dims)


def _strided_slice(op: Operator, inputs: Sequence[Array], _out: TensorInfo) -> Array:
    x, begin, end, strides = _arguments(op, inputs, 4)
    cut = strided_slice(x.shape, integers(begin), integers(end), integers(strides), slice_masks(op))
    if cut is None:
        raise ValueError("the bounds do not fit")
    index = tuple(np.arange(length) * step + start for _, length, start, step in cut.ranges)
    return np.asarray(x[np.ix_(*index)].reshape(cut.dims) if index else x.reshape(cut.dims))


def _transpose(op: Operator, inputs: Sequence[Array], _out: TensorInfo) -> Array:
    x, perm = _arguments(op, inputs, 2)
    return np.ascontiguousarray(np.transpose(x, integers(perm)))


def integers(array: Array) -> list[int]:
    """A constant vector of indices."""
    return [int(value) for value in array.reshape(-1)]


def slice_masks(op: Operator) -> dict[str, int]:
    """The masks of STRIDED_SLICE."""
    if op.integer("Offset"):
        raise op.unsupported("ends relative to the starts are not supported")
    names = {"begin": "BeginMask", "end": "EndMask", "ellipsis": "EllipsisMask", "new_axis": "NewAxisMask", "shrink": "ShrinkAxisMask"}
    return {mask: op.integer(option) & 0xFFFFFFFF for mask, option in names.items()}


FOLDERS: dict[str, Callable[[Operator, Sequence[Array], TensorInfo], Array]] = {
    "ADD": _elementwise(np.add),
    "CAST": _cast,
    "CONCATENATION": _concatenation,
    "EXPAND_DIMS": _expand_dims,
    "GATHER": _gather,
    "MUL": _elementwise(np.multiply),
    "PACK": _pack,
    "PAD": _pad,
    "PADV2": _pad,
    "REDUCE_PROD": _product,
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _elementwise(np.subtract),
    "TRANSPOSE": _transpose,
}
