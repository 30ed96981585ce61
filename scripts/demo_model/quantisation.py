"""int8 as TensorFlow Lite specifies it: symmetric weights for each output channel, int32 biases, asymmetric activations.

Elementwise float32 arithmetic only, so that every machine makes the same bytes from the same floats.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo_model.network import Floats, Parameters


@dataclass(frozen=True)
class Scale:
    """`real = scale (integer - zero_point)`; one scale, or one for each channel of dimension 0."""

    scale: Floats
    zero_point: int = 0


@dataclass(frozen=True)
class Layer:
    """Weights, biases and the scale of the output."""

    weights: NDArray[np.int8]
    weight_scale: Scale
    bias: NDArray[np.int32]
    bias_scale: Scale
    output: Scale


@dataclass(frozen=True)
class Quantised:
    """The whole network in integers."""

    image: Scale
    conv1: Layer
    conv2: Layer
    dense: Layer
    probabilities: Scale


IMAGE = Scale(np.array([1 / 255], np.float32), -128)
PROBABILITIES = Scale(np.array([1 / 256], np.float32), -128)  # the only one that SOFTMAX has


def quantise(parameters: Parameters, ranges: dict[str, Floats]) -> Quantised:
    """The network in integers; `ranges` are the smallest and largest activation of each layer."""
    hidden1, hidden2, logits = (activation(*ranges[name]) for name in ("hidden1", "hidden2", "logits"))
    return Quantised(
        image=IMAGE,
        conv1=layer(parameters.conv1, parameters.bias1, IMAGE, hidden1),
        conv2=layer(parameters.conv2, parameters.bias2, hidden1, hidden2),
        dense=layer(parameters.dense, parameters.bias3, hidden2, logits),
        probabilities=PROBABILITIES,
    )


def layer(weights: Floats, bias: Floats, source: Scale, output: Scale) -> Layer:
    """Weights in [-127, 127], one scale for each output channel; the bias at the accumulator's scale."""
    magnitude = np.abs(weights).reshape(len(weights), -1).max(axis=1)
    scale = (magnitude / np.float32(127)).astype(np.float32)
    integers = np.rint(weights / scale.reshape(-1, *[1] * (weights.ndim - 1)))
    accumulator = (source.scale * scale).astype(np.float32)
    return Layer(
        weights=np.clip(integers, -127, 127).astype(np.int8),
        weight_scale=Scale(scale),
        bias=np.rint(bias.astype(np.float64) / accumulator).astype(np.int32),
        bias_scale=Scale(accumulator),
        output=output,
    )


def activation(smallest: np.float32, largest: np.float32) -> Scale:
    """A scale whose range holds zero exactly."""
    low, high = min(np.float32(0), smallest), max(np.float32(0), largest)
    scale = np.float32((high - low) / np.float32(255))
    return Scale(np.array([scale], np.float32), int(np.rint(-128 - low / scale)))


def quantise_pixels(pixels: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Pixels 0..16 as the model's int8 input."""
    return np.rint(pixels / 16 * 255 - 128).astype(np.int8)
