"""Operators that only move elements: RESHAPE, SQUEEZE, EXPAND_DIMS, TRANSPOSE, CONCATENATION, STRIDED_SLICE."""

from math import prod

from nexus_edge.proofs.importers.folding import integers, slice_masks
from nexus_edge.proofs.importers.graph import Operator, TensorInfo
from nexus_edge.proofs.importers.lowering import Constant, Lowering, Value, native_dims
from nexus_edge.proofs.importers.shapes import Dims, Range, strided_slice, transposition, whole


def lower_reshape(lowering: Lowering, op: Operator) -> None:
    """RESHAPE, SQUEEZE and EXPAND_DIMS: no operator of the program, only another shape."""
    x, info = lowering.value(op, 0), lowering.activation(op, lowering.output(op))
    lowering.same_quantization(op, x.info, info)
    dims = {"RESHAPE": _reshaped, "SQUEEZE": _squeezed, "EXPAND_DIMS": _expanded}[op.kind](lowering, op, lowering.file_dims(op, 0), info)
    if prod(dims) != prod(x.dims):
        raise op.malformed(f"{list(x.dims)} cannot be read as {list(dims)}", info)
    lowering.bind(op, Value(x.id, x.stored, native_dims(dims), info))


def _reshaped(lowering: Lowering, op: Operator, dims: Dims, info: TensorInfo) -> Dims:
    if len(op.inputs) > 1 and op.inputs[1] >= 0:
        shape = integers(lowering.constant(op, 1, "int32"))
    else:
        option = op.options.get("NewShape", info.dims)
        shape = list(option) if isinstance(option, tuple) else []
    known = prod(dim for dim in shape if dim != -1)
    if shape.count(-1) > 1 or min(shape, default=1) < -1 or known == 0:
        raise op.malformed(f"its shape {shape} makes no sense", info)
    return tuple(prod(dims) // known if dim == -1 else dim for dim in shape)


def _squeezed(_lowering: Lowering, op: Operator, dims: Dims, info: TensorInfo) -> Dims:
    axes = op.options.get("SqueezeDims", ())
    rank = len(dims)
    if not isinstance(axes, tuple) or not all(-rank <= axis < rank and dims[axis] == 1 for axis in axes):
        raise op.malformed(f"it removes dimensions {axes} of {list(dims)}", info)
    removed = {axis % rank for axis in axes} or {i for i, dim in enumerate(dims) if dim == 1}
    return tuple(dim for i, dim in enumerate(dims) if i not in removed)


def _expanded(lowering: Lowering, op: Operator, dims: Dims, info: TensorInfo) -> Dims:
    axes = integers(lowering.constant(op, 1, "int32", "int64"))
    if len(axes) != 1 or not -len(dims) - 1 <= axes[0] <= len(dims):
        raise op.malformed(f"it adds dimension {axes} to {list(dims)}", info)
    axis = axes[0] % (len(dims) + 1)
    return (*dims[:axis], 1, *dims[axis:])


def lower_transpose(lowering: Lowering, op: Operator) -> None:
    """TRANSPOSE by a constant permutation."""
    x, info = lowering.value(op, 0), lowering.activation(op, lowering.output(op))
    lowering.same_quantization(op, x.info, info)
    perm = [axis % len(x.dims) for axis in integers(lowering.constant(op, 1, "int32")) if -len(x.dims) <= axis < len(x.dims)]
    if sorted(perm) != list(range(len(x.dims))):
        raise op.malformed("its second input is no permutation", info)
    dims = lowering.declared(op, info, tuple(x.dims[axis] for axis in perm))
    fine, order = transposition(x.dims, perm)
    if list(order) == sorted(order):  # only dimensions of size 1 move
        lowering.bind(op, Value(x.id, x.stored, dims, info))
        return
    source, out = lowering.as_shape(op, x, x.dims), lowering.define(op, info)
    lowering.builder.permute(op.label, source.id, out.id, fine, order)
    lowering.bind(op, out)


def lower_concatenation(lowering: Lowering, op: Operator) -> None:
    """CONCATENATION of tensors with one scale; constant ones are synthesised."""
    info = lowering.activation(op, lowering.output(op))
    if op.integer("FusedActivationFunction") != 0:
        raise op.unsupported("a fused activation of CONCATENATION is ignored by the runtimes", info)
    found = [lowering.get(op, i) for i in range(len(op.inputs))]
    computed = [lowering.value(op, i) for i, one in enumerate(found) if not isinstance(one, Constant)]
    lowering.same_quantization(op, info, *(one.info for one in found))
    values = [
        lowering.synthesize(op, one, computed[0], lowering.quantization(op, one.info).zero_point)
        if isinstance(one, Constant)
        else lowering.value(op, i)
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
        pieces.append((lowering.as_shape(op, value, value.dims).id, ranges))
        start += value.dims[axis]
    dims = (*values[0].dims[:axis], start, *values[0].dims[axis + 1 :])
    out = lowering.define(op, info, lowering.declared(op, info, dims))
    lowering.builder.view(op.label, out.id, pieces)
    lowering.bind(op, out)


def lower_strided_slice(lowering: Lowering, op: Operator) -> None:
    """STRIDED_SLICE with constant bounds and any masks."""
    x, info = lowering.value(op, 0), lowering.activation(op, lowering.output(op))
    lowering.same_quantization(op, x.info, info)
    bounds = [integers(lowering.constant(op, i, "int32")) for i in (1, 2, 3)]
    cut = strided_slice(x.dims, bounds[0], bounds[1], bounds[2], slice_masks(op))
    if cut is None:
        raise op.malformed(f"its bounds {bounds} do not fit {list(x.dims)}, or nothing is left", info)
    dims = lowering.declared(op, info, native_dims(cut.dims))
    source = lowering.as_shape(op, x, x.dims)
    out = lowering.define(op, info, tuple(length for _, length, _, _ in cut.ranges), dims)
    lowering.builder.view(op.label, out.id, [(source.id, cut.ranges)])
    lowering.bind(op, out)
