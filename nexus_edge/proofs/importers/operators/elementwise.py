"""ADD, SUB and MUL."""

import numpy as np
from numpy.typing import NDArray

from nexus_edge.proofs.importers.activations import Table, inputs
from nexus_edge.proofs.importers.activations import clamp as clamp_table
from nexus_edge.proofs.importers.graph import Operator
from nexus_edge.proofs.importers.lowering import Constant, Lowering, Value
from nexus_edge.proofs.importers.operators.contractions import clamp
from nexus_edge.proofs.importers.quantization import Multiplier, Quantization, quantize_multiplier, rescale
from nexus_edge.proofs.importers.shapes import Dims, broadcast, padded, positions

ADD_SHIFT = 20
TABLE_COST = 256
"""What 65,536 rows weigh beside the requantisation of a channel."""


def lower_elementwise(lowering: Lowering, op: Operator) -> None:
    """Two computed inputs; or one, and a constant: the cheapest way for it, at worst as a tensor of its own."""
    if len(op.inputs) != 2:
        raise op.malformed(f"it has {len(op.inputs)} inputs instead of two")
    found = [lowering.get(op, i) for i in (0, 1)]
    constants = [i for i in (0, 1) if isinstance(found[i], Constant)]
    info = lowering.output(op)
    q = [lowering.quantization(op, f.info) for f in found] + [lowering.quantization(op, info)]
    if not q[0].dtype == q[1].dtype == q[2].dtype:
        raise op.unsupported("its tensors differ in type", info)
    if constants and _with_constant(lowering, op, constants[0], q):
        return
    first, second = (_computed(lowering, op, i, q) for i in (0, 1))
    _combine(lowering, op, first, second, q)


def _computed(lowering: Lowering, op: Operator, place: int, q: list[Quantization]) -> Value:
    """An input as a tensor of the program."""
    known = lowering.get(op, place)
    if isinstance(known, Constant):
        return lowering.synthesize(op, known, lowering.value(op, 1 - place), q[place].zero_point)
    return lowering.value(op, place)


def _combine(lowering: Lowering, op: Operator, first: Value, second: Value, q: list[Quantization]) -> None:
    lowering.count_rules(op, TABLE_COST)
    first, second, out = lowering.operands(op, first, second, lowering.output(op))
    if op.kind == "MUL":
        table = _product_table(lowering, op, q, inputs(q[0])[:, None], inputs(q[1])[None, :])
        lowering.builder.lookup(op.label, [first.id, second.id], out.id, table)
    else:
        lowering.builder.add(op.label, first.id, second.id, out.id, _sum_multipliers(op, q), clamp(op, q[2]), op.kind == "SUB")
    lowering.bind(op, out)


def _with_constant(lowering: Lowering, op: Operator, place: int, q: list[Quantization]) -> bool:
    """Lowers a constant operand to a table if it is one value, or to a depthwise convolution if it scales channels; else does nothing."""
    known, x, info = lowering.get(op, place), lowering.value(op, 1 - place), lowering.output(op)
    assert isinstance(known, Constant)
    dims = broadcast(x.dims, known.array.shape)
    if dims is None:
        raise op.malformed(f"the shapes {list(x.dims)} and {list(known.array.shape)} cannot be combined", info)
    values = known.array.astype(np.int64).reshape(-1) - q[place].zero_point
    if (values == values[0]).all() and not lowering.private:
        source = x if dims == x.dims else lowering.broadcast(op, x, dims)
        out = lowering.define(op, info, source.stored, lowering.declared(op, info, dims))
        lowering.builder.lookup(op.label, [source.id], out.id, _constant_table(lowering, op, q, place, int(values[0])))
        lowering.bind(op, out)
        return True
    # Factors of zero point 0 are int8 whatever they are.
    fits = q[place].zero_point == 0 or not lowering.private
    if op.kind == "MUL" and dims == x.dims and fits and _scales_channels(known, dims, values, q[place]):
        lowering.bind(op, _scale_channels(lowering, op, x, np.broadcast_to(values, x.dims[-1]), q, place))
        return True
    return False


def _scales_channels(known: Constant, dims: Dims, factors: NDArray[np.int64], q: Quantization) -> bool:
    """Whether the constant is one factor for each channel that the program's weights can hold."""
    low, high = (-128, 127) if q.dtype == "int8" else (-255, 255)
    per_channel = padded(known.array.shape, len(dims))[:-1] == (1,) * (len(dims) - 1)
    return per_channel and bool(low <= factors.min() <= factors.max() <= high)


def _scale_channels(lowering: Lowering, op: Operator, x: Value, factors: NDArray[np.int64], q: list[Quantization], place: int) -> Value:
    """MUL by one factor for each channel is a depthwise convolution with a window of one cell."""
    info = lowering.output(op)
    multiplier = _product_multiplier(lowering, q)
    # Overflow is as in the table.
    _product_table(lowering, op, q, inputs(q[1 - place])[:, None], factors[None, :])
    size = (positions(x.dims), 1)
    out = lowering.define(op, info)
    window = (1, size, size, (1, 1), (1, 1), (0, 0), (1, 1))
    weights = np.ascontiguousarray(factors.astype(np.int32).reshape(1, 1, -1))
    lowering.builder.conv(
        op.label,
        lowering.as_rows(op, x).id,
        out.id,
        window,
        weights,
        None,
        q[1 - place].zero_point,
        [multiplier] * len(factors),
        clamp(op, q[2]),
        True,
    )
    return out


def _constant_table(lowering: Lowering, op: Operator, q: list[Quantization], place: int, value: int) -> Table:
    """The 256 outputs of an operator with one constant input (centred `value`)."""
    x = inputs(q[1 - place])
    if op.kind == "MUL":
        return _product_table(lowering, op, q, x, np.int64(value))
    first, second, output = _sum_multipliers(op, q)
    both = [x, x]
    both[place] = np.full_like(x, value)
    left, right = rescale(both[0] << ADD_SHIFT, first), rescale(both[1] << ADD_SHIFT, second)
    total = left - right if op.kind == "SUB" else left + right
    return clamp_table(rescale(total, output) + q[2].zero_point, *clamp(op, q[2]))


def _product_multiplier(lowering: Lowering, q: list[Quantization]) -> Multiplier:
    """From the product of the inputs' scales to the output's: in double in TFLM, in float32 in the others."""
    if lowering.semantics == "tflm":
        return quantize_multiplier(q[0].scale * q[1].scale / q[2].scale)
    first, second, out = (np.float32(part.scale) for part in q)
    return quantize_multiplier(float(first * second / out))


def _product_table(
    lowering: Lowering, op: Operator, q: list[Quantization], first: NDArray[np.int64], second: NDArray[np.int64] | np.int64
) -> Table:
    values = rescale(first * second, _product_multiplier(lowering, q))
    return clamp_table(values + q[2].zero_point, *clamp(op, q[2])).reshape(-1)


def _sum_multipliers(op: Operator, q: list[Quantization]) -> tuple[Multiplier, Multiplier, Multiplier]:
    """Both inputs to twice the larger scale (so that the sum fits), the sum to the output."""
    twice = 2 * max(q[0].scale, q[1].scale)
    reals = [q[0].scale / twice, q[1].scale / twice, twice / ((1 << ADD_SHIFT) * q[2].scale)]
    first, second, output = (quantize_multiplier(real) for real in reals)
    if not all(0 < real < 1 for real in reals) or min(first[1], second[1], output[1]) < 0:
        raise op.unsupported("its scales are too far apart for the kernel")
    return first, second, output
