"""From the bytes of a .tflite file to a checked integer program."""

import numpy as np

from nexus_edge.errors import MalformedModel, UnsupportedModel
from nexus_edge.proofs import _native
from nexus_edge.proofs.importers.folding import FOLDERS, fold
from nexus_edge.proofs.importers.graph import Graph, Operator, TensorInfo
from nexus_edge.proofs.importers.lowering import Constant, FloatEdge, Lowering, Value, native_dims
from nexus_edge.proofs.importers.operators import LOWERINGS
from nexus_edge.proofs.importers.schema import parse
from nexus_edge.types import PrivateForm

SEMANTICS = ("tflm", "tflite-2.14", "litert-2.3-ref")
EDGES = ("QUANTIZE", "DEQUANTIZE")


def import_tflite(data: bytes, name: str, semantics: str | None = None, private: PrivateForm | None = None) -> _native.Model:
    """The program that computes exactly what the named runtime's reference kernels compute for this model.

    `semantics` is one of `tflm` (TensorFlow Lite Micro; the default), `tflite-2.14` (the default of legacy uint8 models, which TFLM cannot
    run) and `litert-2.3-ref`. With `private`, the program says nothing about weights, biases and other constants of the model's arithmetic:
    two models of one shape with the same scales become the same program.

    Raises `MalformedModel` for bytes that are no model, and `UnsupportedModel`, naming operator and tensor, for everything that has no
    exact meaning in that runtime or cannot be proved.
    """
    if semantics is not None and semantics not in SEMANTICS:
        raise UnsupportedModel("unknown semantics", repr(semantics), f"one of {', '.join(SEMANTICS)}")
    graph = parse(data)
    legacy = _first_legacy(graph)
    if semantics == "tflm" and legacy is not None:
        raise legacy.unsupported("TensorFlow Lite Micro has no uint8 kernels", hint="use semantics tflite-2.14")
    chosen = semantics or ("tflm" if legacy is None else "tflite-2.14")
    try:
        return _lower(graph, _native.ProgramBuilder(name, chosen), chosen, private)
    except _native.ProgramError as error:
        raise _refusal(graph, error) from error


def _refusal(graph: Graph, error: _native.ProgramError) -> UnsupportedModel:
    """What the native module refuses, at the operator of the file that it is about."""
    for op in graph.operators:
        if error.place == op.label or error.place.startswith(f"{op.label}: "):
            return op.unsupported(str(error).removeprefix(f"{op.label}: "))
    return UnsupportedModel("the model cannot be proved", str(error))


def _first_legacy(graph: Graph) -> Operator | None:
    """The first operator that computes with uint8."""
    for op in graph.operators:
        infos = [graph.tensors[i] for i in (*op.inputs, *op.outputs) if i >= 0]
        if op.kind not in EDGES and any(info.dtype == "uint8" for info in infos):
            return op
    return None


def _lower(graph: Graph, builder: _native.ProgramBuilder, semantics: str, private: PrivateForm | None) -> _native.Model:
    lowering = Lowering(graph, builder, semantics, _aliases(graph), private is not None)
    for index in graph.inputs:
        _lower_input(lowering, graph.tensors[index])
    for op in graph.operators:
        _lower_operator(lowering, op)
    taken = {known.id for known in lowering.known.values() if isinstance(known, Value) and known.info.index in graph.inputs}
    for index in graph.outputs:
        taken.add(_lower_output(lowering, graph.tensors[index], taken))
    if private is not None:
        builder.private(private.log_bounds)
    return builder.finish()


def _aliases(graph: Graph) -> dict[int, str]:
    """Integer tensors at float edges, with the names of the float tensors."""
    names = {}
    for op in graph.operators:
        if len(op.inputs) == 1 and len(op.outputs) == 1:
            if op.kind == "QUANTIZE" and op.inputs[0] in graph.inputs and graph.tensors[op.inputs[0]].dtype == "float32":
                names[op.outputs[0]] = graph.tensors[op.inputs[0]].name
            if op.kind == "DEQUANTIZE" and op.outputs[0] in graph.outputs:
                names.setdefault(op.inputs[0], graph.tensors[op.outputs[0]].name)
    return names


def _lower_input(lowering: Lowering, info: TensorInfo) -> None:
    if info.index in lowering.known or info.data is not None:
        raise MalformedModel(
            "the model's inputs are wrong", f"tensor {info.index} ({info.name!r}) is constant or named twice", tensor=info.name
        )
    if info.dtype != "float32":
        port = Operator(-1, "input", (), (info.index,))
        lowering.quantization(port, info)
        value = lowering.define(port, info)
        lowering.builder.input(value.id)
        lowering.known[info.index] = value
        return
    readers = [op for op in lowering.graph.operators if info.index in op.inputs]
    for op in readers:
        if op.kind != "QUANTIZE":
            raise op.unsupported("float arithmetic cannot be proved; only QUANTIZE may read a float input", info)
    if not readers:
        raise UnsupportedModel("float input", f"nothing quantises tensor {info.index} ({info.name!r})", tensor=info.name)
    inside = lowering.output(readers[0])
    lowering.quantization(readers[0], inside)
    lowering.declared(readers[0], inside, info.dims)
    value = lowering.define(readers[0], inside)
    lowering.builder.input(value.id, float_edge=True)
    lowering.known[info.index] = FloatEdge(info, value, True)


def _lower_operator(lowering: Lowering, op: Operator) -> None:
    lower = LOWERINGS.get(op.kind)
    if lower is None and op.kind not in FOLDERS and op.kind != "SHAPE":
        raise op.unsupported("this operator cannot be proved")
    if op.kind == "SHAPE":
        lowering.bind_constant(op, _shape(lowering, op))
        return
    given = [lowering.get(op, i) for i, index in enumerate(op.inputs) if index >= 0]
    if not given:
        raise op.malformed("it has no inputs")
    computed = [known for known in given if not isinstance(known, Constant)]
    if not computed:
        lowering.bind_constant(op, fold(op, [known.array for known in given if isinstance(known, Constant)], lowering.output(op)))
    elif lower is None:
        raise op.unsupported("it can only be computed at import, from constants", computed[0].info)
    else:
        try:
            with np.errstate(over="ignore", under="ignore"):
                lower(lowering, op)
        except OverflowError as error:  # what the kernels would do is undefined
            raise op.unsupported(str(error)) from error


def _shape(lowering: Lowering, op: Operator) -> np.ndarray:
    """SHAPE: all shapes are static."""
    lowering.get(op, 0)
    info, dims = lowering.output(op), lowering.file_dims(op, 0)
    if info.dtype not in ("int32", "int64") or info.dims != (len(dims),):
        raise op.malformed("its output is no vector of integers", info)
    return np.array(dims, info.dtype)


def _lower_output(lowering: Lowering, info: TensorInfo, taken: set[int]) -> int:
    known = lowering.known.get(info.index)
    port = Operator(-1, "output", (info.index,), ())
    if known is None or isinstance(known, Constant):
        why = "nothing computes it" if known is None else "it is constant"
        raise MalformedModel("the model's outputs are wrong", f"tensor {info.index} ({info.name!r}): {why}", tensor=info.name)
    if isinstance(known, FloatEdge) and known.is_input:
        raise UnsupportedModel("the model's outputs are wrong", f"tensor {info.index} ({info.name!r}) is a float input", tensor=info.name)
    is_float = isinstance(known, FloatEdge)
    value = known.inside if isinstance(known, FloatEdge) else lowering.value(port, 0)
    lowering.quantization(port, value.info)
    value = lowering.as_shape(port, value, native_dims(info.dims))
    if value.id in taken:
        value = lowering.copy(port, value)
    lowering.builder.output(value.id, float_edge=is_float)
    return value.id
