"""Operators on one tensor: RELU and its kin, LOGISTIC, TANH, HARD_SWISH, SOFTMAX, QUANTIZE, DEQUANTIZE."""

from math import isfinite

from nexus_edge.proofs.importers import activations
from nexus_edge.proofs.importers.graph import Operator
from nexus_edge.proofs.importers.lowering import FloatEdge, Lowering, Value, label
from nexus_edge.proofs.importers.quantization import Quantization, quantize_multiplier

CLIPS: dict[str, tuple[float, float | None]] = {"RELU": (0, None), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}


def lower_activation(low: Lowering, op: Operator) -> None:
    """A table of 256 rows."""
    x, info = low.value(op, 0), low.output(op)
    q_x, q_out = low.quantization(op, x.info), low.quantization(op, info)
    if q_x.dtype != q_out.dtype:
        raise op.unsupported("input and output differ in type", info)
    if op.kind in CLIPS:
        low.same_quantization(op, x.info, info)
    try:
        table = _table(op.kind, q_x, q_out, low.semantics)
    except (activations.Undefined, OverflowError) as error:
        raise op.unsupported(str(error), info) from error
    _lookup(low, op, x, table)


def _table(kind: str, x: Quantization, out: Quantization, semantics: str) -> activations.Table:
    if kind in CLIPS:
        return activations.clip(x, *CLIPS[kind])
    if kind == "LOGISTIC":
        return activations.logistic(x, out, semantics)
    if kind == "TANH":
        return activations.tanh(x, out, semantics)
    return activations.hard_swish(x, out)


def _lookup(low: Lowering, op: Operator, x: Value, table: activations.Table) -> None:
    out = low.define(op, low.output(op), x.stored, x.dims)
    low.builder.lookup(label(op), [x.id], out.id, table)
    low.bind(op, out)


def lower_softmax(low: Lowering, op: Operator) -> None:
    """SOFTMAX over the last dimension, to scale 1/256."""
    x, info = low.value(op, 0), low.output(op)
    q_x, q_out = low.quantization(op, x.info), low.quantization(op, info)
    if q_x.dtype != q_out.dtype or q_out.scale != 1 / 256 or q_out.zero_point != q_out.range[0]:
        raise op.unsupported("its output must have the input's type, scale 1/256 and the smallest value as zero point", info)
    beta = op.options.get("Beta", 0.0)
    if not isinstance(beta, float) or not isfinite(beta) or beta <= 0:
        raise op.unsupported(f"beta is {beta}", info)
    real = min(beta * q_x.scale * (1 << 26), (1 << 31) - 1.0)
    if real <= 1:
        raise op.unsupported("its input scale is too small for the kernel", x.info)
    m, e = quantize_multiplier(real)
    source = low.as_rows(op, x)
    out = low.define(op, info, source.stored, low.declared(op, info, x.dims))
    low.builder.softmax(label(op), source.id, out.id, m, -e)
    low.bind(op, out)


def lower_quantize(low: Lowering, op: Operator) -> None:
    """QUANTIZE: of a float input of the model, or between integer types."""
    found, info = low.get(op, 0), low.output(op)
    q = low.quantization(op, info)
    if not isinstance(found, FloatEdge):
        x = low.value(op, 0)
        try:
            table = activations.requantize(low.quantization(op, x.info), q)
        except OverflowError as error:
            raise op.unsupported(str(error), info) from error
        _lookup(low, op, x, table)
        return
    low.declared(op, info, found.info.dims)
    if not found.is_input:
        raise op.unsupported("it quantises the output of a DEQUANTIZE", found.info)
    low.same_quantization(op, found.inside.info, info)
    low.bind(op, found.inside)


def lower_dequantize(low: Lowering, op: Operator) -> None:
    """DEQUANTIZE: only of what leaves the model."""
    x, info = low.value(op, 0), low.output(op)
    low.quantization(op, x.info)
    if info.dtype != "float32":
        raise op.unsupported(f"its output has type {info.dtype}", info)
    low.declared(op, info, x.dims)
    low.known[info.index] = FloatEdge(info, x, False)
