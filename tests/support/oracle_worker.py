"""Runs models in a reference runtime, in a process of its own: runtimes abort on what they do not like.

Started as `python oracle_worker.py RUNTIME`; requests and answers are frames of `.npz` bytes.
"""

import importlib
import io
import struct
import sys
import time
from collections.abc import Callable
from typing import IO, Any

import numpy as np

Arrays = list[Any]

ARENA = 4 << 20
"""Bytes for activations."""

MODULES = {"tflite-2.14": "tflite_runtime", "litert-2.3-ref": "ai_edge_litert", "litert-2.3": "ai_edge_litert"}
OPTIMISED = {"litert-2.3"}
"""Runtimes that are only timed: their kernels are fast, and not exact."""


def read_frame(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next frame, or `None` at the end."""
    header = stream.read(8)
    if len(header) < 8:
        return None
    (size,) = struct.unpack("<Q", header)
    payload = stream.read(size)
    if len(payload) < size:
        return None
    with np.load(io.BytesIO(payload)) as arrays:
        return dict(arrays)


def write_frame(stream: IO[bytes], arrays: dict[str, Any]) -> None:
    """Sends arrays by name."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    stream.write(struct.pack("<Q", buffer.tell()) + buffer.getvalue())
    stream.flush()


def tflm(model: bytes) -> Callable[[Arrays], Arrays]:
    """TensorFlow Lite Micro."""
    from tflite_micro.python.tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(model, arena_size=ARENA + 10 * len(model))

    def run(inputs: Arrays) -> Arrays:
        for i, array in enumerate(inputs):
            interpreter.set_input(array, i)
        interpreter.invoke()
        outputs: Arrays = []
        while True:
            try:
                outputs.append(np.array(interpreter.get_output(len(outputs))))
            except (RuntimeError, ValueError, IndexError):
                return outputs

    return run


def tflite(module: Any, model: bytes, optimised: bool) -> Callable[[Arrays], Arrays]:
    """The kernels of a TensorFlow Lite runtime, on one thread."""
    resolver = module.OpResolverType.AUTO if optimised else module.OpResolverType.BUILTIN_REF
    interpreter = module.Interpreter(model_content=model, experimental_op_resolver_type=resolver, num_threads=1)
    interpreter.allocate_tensors()
    details, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(inputs: Arrays) -> Arrays:
        for detail, array in zip(details, inputs, strict=True):
            interpreter.set_tensor(detail["index"], array)
        interpreter.invoke()
        return [np.array(interpreter.get_tensor(output["index"])) for output in outputs]

    return run


def load(runtime: str, model: bytes) -> Callable[[Arrays], Arrays]:
    """The named runtime's interpreter for a model."""
    if runtime == "tflm":
        return tflm(model)
    return tflite(importlib.import_module(f"{MODULES[runtime]}.interpreter"), model, runtime in OPTIMISED)


def answer(runtime: str, request: dict[str, Any]) -> dict[str, Any]:
    """Runs every input of the request: array `i` has one row for each run. The seconds of each run come with the outputs."""
    model = request.pop("model").tobytes()
    runs, seconds = [], []
    try:
        run = load(runtime, model)
        stacked = [request[f"input{i}"] for i in range(len(request))]
        for n in range(len(stacked[0])):
            started = time.perf_counter()
            runs.append(run([array[n] for array in stacked]))
            seconds.append(time.perf_counter() - started)
    except (RuntimeError, ValueError) as error:
        return {"error": np.frombuffer(str(error).encode(), np.uint8)}
    outputs = {f"output{i}": np.stack([one[i] for one in runs]) for i in range(len(runs[0]))}
    return outputs | {"seconds": np.array(seconds)}


def main() -> None:
    """Serves requests until the input closes."""
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # runtimes print
    while (request := read_frame(sys.stdin.buffer)) is not None:
        write_frame(out, answer(sys.argv[1], request))


if __name__ == "__main__":
    main()
