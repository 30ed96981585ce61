"""Small models for tests of everything around the prover."""

import numpy as np

from tflite_writer import ModelWriter


def float_edges() -> bytes:
    """float32 (1, 4) -> QUANTIZE -> fully connected -> DEQUANTIZE -> float32 (1, 3)."""
    file = ModelWriter()
    x = file.input("float32", [1, 4], name="x")
    inside = file.tensor("int8", [1, 4], 0.05, -3, name="inside")
    weights = file.constant(np.array([[3, -7, 127, 0], [-127, 5, 1, 2], [64, 64, -64, 33]], np.int8), 0.02)
    bias = file.constant(np.array([100, -2000, 7], np.int32), 0.05 * 0.02)
    hidden = file.tensor("int8", [1, 3], 0.1, 4, name="hidden")
    y = file.tensor("float32", [1, 3], name="y")
    file.add("QUANTIZE", [x], inside)
    file.add("FULLY_CONNECTED", [inside, weights, bias], hidden)
    file.add("DEQUANTIZE", [hidden], y)
    return file.finish(y)


def two_inputs() -> bytes:
    """int8 (1, 6) + int8 (1, 6)."""
    file = ModelWriter()
    first = file.input("int8", [1, 6], 0.1, 1, name="first")
    second = file.input("int8", [1, 6], 0.2, -5, name="second/value:0")
    out = file.tensor("int8", [1, 6], 0.25, 0, name="sum")
    file.add("ADD", [first, second], out)
    return file.finish(out)


def float_arithmetic() -> bytes:
    """float32 fully connected: nothing that could be proved."""
    file = ModelWriter()
    x = file.input("float32", [1, 4], name="x")
    weights = file.constant(np.ones((3, 4), np.float32))
    y = file.tensor("float32", [1, 3], name="y")
    file.add("FULLY_CONNECTED", [x, weights], y)
    return file.finish(y)


def chainable(seed: int = 5) -> bytes:
    """int8 (1, 12) -> fully connected -> the same type, scale and zero point, so that it or another such model can be applied to the output."""
    file = ModelWriter()
    x = file.input("int8", [1, 12], 0.1, 2, name="x")
    weights = file.constant(np.random.default_rng(seed).integers(-127, 128, (12, 12)).astype(np.int8), 0.004)
    y = file.tensor("int8", [1, 12], 0.1, 2, name="y")
    file.add("FULLY_CONNECTED", [x, weights, -1], y)
    return file.finish(y)
