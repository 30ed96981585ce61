"""Operators that only move elements: RESHAPE, SQUEEZE, EXPAND_DIMS, TRANSPOSE, CONCATENATION, STRIDED_SLICE."""

from math import prod

from nexus_edge.proofs.importers.folding import integers, slice_masks
from nexus_edge.proofs.importers.graph import Operator, TensorInfo
from nexus_edge.proofs.importers.lowering import Constant, Lowering, Value, label, native_dims
from nexus_edge.proofs.importers.shapes import Dims, Range, strided_slice, transposition, whole


def lower_reshape(low: Lowering, op: Operator) -> None:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: no operator of the program, only another shape."""
    x, info = low.value(op, 0), low.activation(op, low.output(op))
    low.same_quantization(op, x.info, info)
    dims = {"RESHAPE": _reshaped, "SQUEEZE": _squeezed, "EXPAND_DIMS": _expanded}[op.kind](low, op, low.file_dims(op, 0), info)
    if prod(dims) != prod(x.dims):
        raise op.malformed(f"{list(x.dims)} cannot be read as {list(dims)}", info)
    low.bind(op, Value(x.id, x.stored, native_dims(dims), info))


def _reshaped(low: Lowering, op: Operator, dims: Dims, info: TensorInfo) -> Dims:
    if len(op.inputs) > 1 and op.inputs[1] >= 0:
        shape = integers(low.constant(op, 1, "int32"))
    else:
        option = op.options.get("NewShape", info.dims)
        shape = list(option) if isinstance(option, tuple) else []
    known = prod(dim for dim in shape if dim != -1)
    if shape.count(-1) > 1 or min(shape, default=1) < -1 or known == 0:
        raise op.malformed(f"its shape {shape} makes no sense", info)
    return tuple(prod(dims) // known if dim == -1 else dim for dim in shape)


def _squeezed(_low: Lowering, op: Operator, dims: Dims, info: TensorInfo) -> Dims:
    axes = op.options.get("SqueezeDims", ())
    rank = len(dims)
    if not isinstance(axes, tuple) or not all(-rank <= axis < rank and dims[axis] == 1 for axis in axes):
        raise op.malformed(f"it removes dimensions {axes} of {list(dims)}", info)
    removed = {axis % rank for axis in axes} or {i for i, dim in enumerate(dims) if dim == 1}
    return tuple(dim for i, dim in enumerate(dims) if i not in removed)


def _expanded(low: Lowering, op: Operator, dims: Dims, info: TensorInfo) -> Dims:
    axes = integers(low.constant(op, 1, "int32", "int64"))
    if len(axes) != 1 or not -len(dims) - 1 <= axes[0] <= len(dims):
        raise op.malformed(f"it adds dimension {axes} to {list(dims)}", info)
    axis = axes[0] % (len(dims) + 1)
    return (*dims[:axis], 1, *dims[axis:])


def lower_transpose(low: Lowering, op: Operator) -> None:
    """TRANSPOSE by a constant permutation."""
    x, info = low.value(op, 0), low.activation(op, low.output(op))
    low.same_quantization(op, x.info, info)
    perm = [axis % len(x.dims) for axis in integers(low.constant(op, 1, "int32")) if -len(x.dims) <= axis < len(x.dims)]
    if sorted(perm) != list(range(len(x.dims))):
        raise op.malformed("its second input is no permutation", info)
    dims = low.declared(op, info, tuple(x.dims[axis] for axis in perm))
    fine, order = transposition(x.dims, perm)
    if list(order) == sorted(order):  # only dimensions of size 1 move
        low.bind(op, Value(x.id, x.stored, dims, info))
        return
    source, out = low.as_shape(op, x, x.dims), low.define(op, info)
    low.builder.permute(label(op), source.id, out.id, fine, order)
    low.bind(op, out)


def lower_concatenation(low: Lowering, op: Operator) -> None:
    """CONCATENATION of tensors with one scale; constant ones are synthesised."""
    info = low.activation(op, low.output(op))
    if op.integer("FusedActivationFunction") != 0:
        raise op.unsupported("a fused activation of CONCATENATION is ignored by the runtimes", info)
    found = [low.get(op, i) for i in range(len(op.inputs))]
    computed = [low.value(op, i) for i, one in enumerate(found) if not isinstance(one, Constant)]
    low.same_quantization(op, info, *(one.info for one in found))
    values = [
        low.synthesize(op, one, computed[0], low.quantization(op, one.info).zero_point) if isinstance(one, Constant) else low.value(op, i)
        for i, one in enumerate(found)
    ]
    rank = len(values[0].dims)
    axis = op.integer("Axis")
    if not -rank <= axis < rank or any(len(value.dims) != rank for value in values):
        raise op.malformed(f"its inputs cannot be joined along dimension {axis}", info)
    axis %= rank
    pieces: list[tuple[int, list[Range]]] = []
    start = 0
    for value in values:
        if value.dims[:axis] + value.dims[axis + 1 :] != values[0].dims[:axis] + values[0].dims[axis + 1 :]:
            raise op.malformed(f"its inputs cannot be joined along dimension {axis}", info)
        ranges = whole(value.dims)
        ranges[axis] = (start, value.dims[axis], 0, 1)
        pieces.append((low.as_shape(op, value, value.dims).id, ranges))
        start += value.dims[axis]
    dims = (*values[0].dims[:axis], start, *values[0].dims[axis + 1 :])
    out = low.define(op, info, low.declared(op, info, dims))
    low.builder.view(label(op), out.id, pieces)
    low.bind(op, out)


def lower_strided_slice(low: Lowering, op: Operator) -> None:
    """STRIDED_SLICE with constant bounds and any masks."""
    x, info = low.value(op, 0), low.activation(op, low.output(op))
    low.same_quantization(op, x.info, info)
    bounds = [integers(low.constant(op, i, "int32")) for i in (1, 2, 3)]
    cut = strided_slice(x.dims, bounds[0], bounds[1], bounds[2], slice_masks(op))
    if cut is None:
        raise op.malformed(f"its bounds {bounds} do not fit {list(x.dims)}, or nothing is left", info)
    dims = low.declared(op, info, native_dims(cut.dims))
    source = low.as_shape(op, x, x.dims)
    out = low.define(op, info, tuple(length for _, length, _, _ in cut.ranges), dims)
    low.builder.view(label(op), out.id, [(source.id, cut.ranges)])
    low.bind(op, out)
