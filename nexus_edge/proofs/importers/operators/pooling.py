"""AVERAGE_POOL_2D, MAX_POOL_2D and MEAN."""

from math import prod

from nexus_edge.proofs.importers.folding import integers
from nexus_edge.proofs.importers.graph import Operator
from nexus_edge.proofs.importers.lowering import Lowering, Value, native_dims
from nexus_edge.proofs.importers.operators.contractions import clamp, image, window
from nexus_edge.proofs.importers.quantization import INT32, mean_multiplier
from nexus_edge.proofs.importers.shapes import SAME, Dims, Window, positions, transposition


def lower_pool(lowering: Lowering, op: Operator) -> None:
    """Pools need equal scales: there the runtimes refuse or ignore the output's."""
    x, info = lowering.value(op, 0), lowering.output(op)
    lowering.same_quantization(op, x.info, info)
    q = lowering.quantization(op, info)
    kernel, stride = (op.integer("FilterHeight"), op.integer("FilterWidth")), (op.integer("StrideH"), op.integer("StrideW"))
    geometry = window(op, image(op, x), kernel, stride)
    out = lowering.define(op, info, lowering.declared(op, info, (geometry.batch, *geometry.output, x.dims[3])))
    lowering.count_rules(op, geometry.batch * prod(geometry.output) if op.integer("Padding") == SAME else x.dims[3])
    add = lowering.builder.average_pool if op.kind == "AVERAGE_POOL_2D" else lowering.builder.max_pool
    add(op.label, lowering.as_rows(op, x).id, out.id, geometry.native, clamp(op, q))
    lowering.bind(op, out)


def lower_mean(lowering: Lowering, op: Operator) -> None:
    """MEAN over any dimensions: a window over the reduced positions, after a transposition if they are not neighbours."""
    x, info = lowering.value(op, 0), lowering.output(op)
    q_x, q_out = lowering.quantization(op, x.info), lowering.quantization(op, info)
    if q_x.dtype != q_out.dtype:
        raise op.unsupported("input and output differ in type", info)
    axes = _axes(lowering, op, len(x.dims))
    kept = [i for i in range(len(x.dims)) if i not in axes]
    dims = tuple(1 if i in axes else dim for i, dim in enumerate(x.dims)) if op.integer("KeepDims") else tuple(x.dims[i] for i in kept)
    count = prod(x.dims[i] for i in axes)
    multiplier = mean_multiplier(q_x.scale / q_out.scale, count)
    reach = max(q_x.range[1] - q_x.zero_point, q_x.zero_point - q_x.range[0]) * count
    if reach << max(-multiplier[1], 0) > INT32[1]:
        raise op.unsupported("its sum can leave int32, where the reference kernels overflow", info)
    lowering.count_rules(op, x.dims[-1])
    source, geometry, stored = _arrange(lowering, op, x, axes, kept)
    out = lowering.define(op, info, stored, lowering.declared(op, info, native_dims(dims)))
    lowering.builder.mean(op.label, lowering.as_rows(op, source).id, out.id, geometry.native, q_x.zero_point, multiplier, q_out.range)
    lowering.bind(op, out)


def _axes(lowering: Lowering, op: Operator, rank: int) -> list[int]:
    axes = integers(lowering.constant(op, 1, "int32"))
    if not all(-rank <= axis < rank for axis in axes):
        raise op.malformed(f"its axes {axes} are out of range")
    return sorted({axis % rank for axis in axes})


def _arrange(lowering: Lowering, op: Operator, x: Value, axes: list[int], kept: list[int]) -> tuple[Value, Window, Dims]:
    """The input as an image whose height or width is reduced, the window, and the stored shape of the output."""
    last = len(x.dims) - 1
    reduced = [i for i in axes if x.dims[i] > 1]
    if not reduced:
        size = (positions(x.dims), 1)
        return x, Window(size, size, (1, 1)), (size[0], x.dims[-1])
    outer, inner = prod(x.dims[: reduced[0]]), prod(x.dims[reduced[-1] + 1 : last])
    run = prod(x.dims[reduced[0] : reduced[-1] + 1])
    if reduced[-1] < last and run == prod(x.dims[i] for i in reduced) and 1 in (outer, inner):
        size = (run, inner) if outer == 1 else (outer, run)
        kernel = (run, 1) if outer == 1 else (1, run)
        output = (1, inner) if outer == 1 else (outer, 1)
        return x, Window(size, output, kernel), (prod(output), x.dims[-1])
    # Reduced dimensions first: (reduced, kept), a sum over positions.
    shape = (prod(x.dims[i] for i in axes), prod(x.dims[i] for i in kept))
    source = lowering.as_shape(op, x, x.dims)
    turned = lowering.scratch(x.info, shape, "transposed ")
    lowering.builder.permute(op.label, source.id, turned.id, *transposition(x.dims, [*axes, *kept]))
    return turned, Window((shape[0], 1), (1, 1), (shape[0], 1)), (1, shape[1])
