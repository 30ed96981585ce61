"""PAD, and its folding into the window of the convolution that reads it."""

from dataclasses import dataclass, replace
from math import prod

from nexus_edge.proofs.importers.folding import integers
from nexus_edge.proofs.importers.graph import Operator
from nexus_edge.proofs.importers.lowering import Lowering, Padded, Value
from nexus_edge.proofs.importers.shapes import Window


@dataclass(frozen=True)
class PaddedInput:
    """The input of a contraction and the window over it."""

    value: Value
    window: Window


def lower_pad(lowering: Lowering, op: Operator) -> None:
    """PAD and PADV2."""
    x, info = lowering.value(op, 0), lowering.activation(op, lowering.output(op))
    lowering.same_quantization(op, x.info, info)
    table = lowering.constant(op, 1, "int32", "int64")
    if table.shape != (len(x.dims), 2):
        raise op.malformed(f"its paddings have shape {list(table.shape)} for {len(x.dims)} dimensions", info)
    flat = integers(table)
    before, after = tuple(flat[0::2]), tuple(flat[1::2])
    dims = tuple(b + dim + a for b, dim, a in zip(before, x.dims, after, strict=True))
    if min(flat) < 0 or max(flat) > prod(info.dims):
        raise op.malformed("its paddings are out of range", info)
    lowering.declared(op, info, dims)
    lowering.bind(op, Padded(x, before, _fill(lowering, op, x), dims, info))


def _fill(lowering: Lowering, op: Operator, x: Value) -> int:
    values = lowering.optional(op, 2, x.info.dtype)
    if values is None:
        return lowering.quantization(op, x.info).zero_point
    info = lowering.graph.tensors[op.inputs[2]]
    lowering.same_quantization(op, x.info, info)
    if values.size != 1:
        raise op.malformed("its padding value is no scalar", info)
    return int(values.reshape(-1)[0])


def padded_input(lowering: Lowering, op: Operator, window: Window) -> PaddedInput:
    """The first input of a convolution with a window over the file's shape of it.

    Reads through a PAD where the window can do the padding: cells of the zero point contribute nothing, like missing ones.
    """
    found = lowering.get(op, 0)
    if isinstance(found, Padded) and _is_zero_border(lowering, op, found):
        pad = (window.pad[0] + found.before[1], window.pad[1] + found.before[2])
        folded = replace(window, input=(found.source.dims[1], found.source.dims[2]), pad=pad)
        if folded.reaches_input:
            return PaddedInput(found.source, folded)
    return PaddedInput(lowering.value(op, 0), window)


def _is_zero_border(lowering: Lowering, op: Operator, padded: Padded) -> bool:
    outer = [(padded.before[i], padded.dims[i] - padded.source.dims[i]) for i in (0, 3)]
    return all(pair == (0, 0) for pair in outer) and padded.fill == lowering.quantization(op, padded.info).zero_point
