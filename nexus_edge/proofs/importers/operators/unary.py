"""Operators on one tensor: RELU and its kin, LOGISTIC, TANH, HARD_SWISH, SOFTMAX, QUANTIZE, DEQUANTIZE."""

from math import isfinite

from nexus_edge.proofs.importers import activations
from nexus_edge.proofs.importers.graph import Operator
from nexus_edge.proofs.importers.lowering import FloatEdge, Lowering, Value
from nexus_edge.proofs.importers.quantization import Quantization, quantize_multiplier

CLIPS: dict[str, tuple[float, float | None]] = {"RELU": (0, None), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}


def lower_activation(lowering: Lowering, op: Operator) -> None:
    """A table of 256 rows."""
    x, info = lowering.value(op, 0), lowering.output(op)
    q_x, q_out = lowering.quantization(op, x.info), lowering.quantization(op, info)
    if q_x.dtype != q_out.dtype:
        raise op.unsupported("input and output differ in type", info)
    if op.kind in CLIPS:
        lowering.same_quantization(op, x.info, info)
    try:
        table = _table(op.kind, q_x, q_out, lowering.semantics)
    except activations.Undefined as error:
        raise op.unsupported(str(error), info) from error
    _lookup(lowering, op, x, table)


def _table(kind: str, x: Quantization, out: Quantization, semantics: str) -> activations.Table:
    if kind in CLIPS:
        return activations.clip(x, *CLIPS[kind])
    if kind == "LOGISTIC":
        return activations.logistic(x, out, semantics)
    if kind == "TANH":
        return activations.tanh(x, out, semantics)
    return activations.hard_swish(x, out, semantics)


def _lookup(lowering: Lowering, op: Operator, x: Value, table: activations.Table) -> None:
    out = lowering.define(op, lowering.output(op), x.stored, x.dims)
    lowering.builder.lookup(op.label, [x.id], out.id, table)
    lowering.bind(op, out)


def lower_softmax(lowering: Lowering, op: Operator) -> None:
    """SOFTMAX over the last dimension, to scale 1/256."""
    x, info = lowering.value(op, 0), lowering.output(op)
    q_x, q_out = lowering.quantization(op, x.info), lowering.quantization(op, info)
    if q_x.dtype != q_out.dtype or q_out.scale != 1 / 256 or q_out.zero_point != q_out.range[0]:
        raise op.unsupported("its output must have the input's type, scale 1/256 and the smallest value as zero point", info)
    beta = op.options.get("Beta", 0.0)
    if not isinstance(beta, float) or not isfinite(beta) or beta <= 0:
        raise op.unsupported(f"beta is {beta}", info)
    real = min(beta * q_x.scale * (1 << 26), (1 << 31) - 1.0)
    if real <= 1:
        raise op.unsupported("its input scale is too small for the kernel", x.info)
    m, e = quantize_multiplier(real)
    source = lowering.as_rows(op, x)
    out = lowering.define(op, info, source.stored, lowering.declared(op, info, x.dims))
    lowering.builder.softmax(op.label, source.id, out.id, m, -e)
    lowering.bind(op, out)


def lower_quantize(lowering: Lowering, op: Operator) -> None:
    """QUANTIZE: of a float input of the model, or between integer types."""
    found, info = lowering.get(op, 0), lowering.output(op)
    q = lowering.quantization(op, info)
    if not isinstance(found, FloatEdge):
        x = lowering.value(op, 0)
        _lookup(lowering, op, x, activations.requantize(lowering.quantization(op, x.info), q))
        return
    lowering.declared(op, info, found.info.dims)
    if not found.is_input:
        raise op.unsupported("it quantises the output of a DEQUANTIZE", found.info)
    lowering.same_quantization(op, found.inside.info, info)
    lowering.bind(op, found.inside)


def lower_dequantize(lowering: Lowering, op: Operator) -> None:
    """DEQUANTIZE: only of what leaves the model."""
    x, info = lowering.value(op, 0), lowering.output(op)
    lowering.quantization(op, x.info)
    if info.dtype != "float32":
        raise op.unsupported(f"its output has type {info.dtype}", info)
    lowering.declared(op, info, x.dims)
    lowering.known[info.index] = FloatEdge(info, x, False)
