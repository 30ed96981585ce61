"""A small convolutional network on 8x8 images, in float32, with gradients.

    image 8x8x1 -> conv 3x3, 8, ReLU -> conv 3x3 stride 2, 16, ReLU -> fully connected, 10

SAME padding as TensorFlow defines it. Weights are stored as TensorFlow Lite stores them: (O, KH, KW, C) and (O, I).
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

CLASSES = 10
STRIDES = (1, 2)


@dataclass
class Parameters:
    """Weights and biases, layer by layer."""

    conv1: Floats
    bias1: Floats
    conv2: Floats
    bias2: Floats
    dense: Floats
    bias3: Floats

    @classmethod
    def random(cls, seed: int) -> "Parameters":
        """He initialisation."""
        generator = np.random.default_rng(seed)

        def weights(*shape: int) -> Floats:
            fan_in = int(np.prod(shape[1:]))
            scaled: Floats = (generator.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
            return scaled

        def zeros(count: int) -> Floats:
            return np.zeros(count, np.float32)

        return cls(weights(8, 3, 3, 1), zeros(8), weights(16, 3, 3, 8), zeros(16), weights(CLASSES, 4 * 4 * 16), zeros(CLASSES))

    def arrays(self) -> dict[str, Floats]:
        """By name, in the order of the layers."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass
class Activations:
    """What the layers give for a batch; the patches are what the weights were multiplied with."""

    patches1: Floats
    hidden1: Floats
    patches2: Floats
    hidden2: Floats
    logits: Floats


def forward(parameters: Parameters, images: Floats) -> Activations:
    """All activations for images (N, 8, 8, 1)."""
    patches1 = patches(images, STRIDES[0])
    hidden1 = np.maximum(_convolve(patches1, parameters.conv1) + parameters.bias1, 0)
    patches2 = patches(hidden1, STRIDES[1])
    hidden2 = np.maximum(_convolve(patches2, parameters.conv2) + parameters.bias2, 0)
    logits = hidden2.reshape(len(images), -1) @ parameters.dense.T + parameters.bias3
    return Activations(patches1, hidden1, patches2, hidden2, logits)


def gradients(parameters: Parameters, seen: Activations, labels: NDArray[np.int64]) -> Parameters:
    """Gradients of the mean cross-entropy."""
    count = len(labels)
    wrong = softmax(seen.logits)
    wrong[np.arange(count), labels] -= 1
    wrong /= count
    flat = seen.hidden2.reshape(count, -1)
    back2 = (wrong @ parameters.dense).reshape(seen.hidden2.shape) * (seen.hidden2 > 0)
    conv2 = np.einsum("nhwo,nhwyxc->oyxc", back2, seen.patches2, optimize=True)
    back1 = _spread(np.einsum("nhwo,oyxc->nhwyxc", back2, parameters.conv2, optimize=True), seen.hidden1.shape, STRIDES[1]) * (
        seen.hidden1 > 0
    )
    conv1 = np.einsum("nhwo,nhwyxc->oyxc", back1, seen.patches1, optimize=True)
    return Parameters(conv1, back1.sum((0, 1, 2)), conv2, back2.sum((0, 1, 2)), wrong.T @ flat, wrong.sum(0))


def softmax(logits: Floats) -> Floats:
    """Probabilities."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def patches(images: Floats, stride: int) -> Floats:
    """What every 3x3 window sees: (N, OH, OW, 3, 3, C), zeros outside the image."""
    before, after = padding(images.shape[1], stride)
    padded = np.pad(images, ((0, 0), (before, after), (before, after), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.ascontiguousarray(windows[:, ::stride, ::stride].transpose(0, 1, 2, 4, 5, 3))


def padding(size: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of a 3-tap window: the odd cell goes behind."""
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + 3 - size, 0)
    return total // 2, total - total // 2


def _convolve(seen: Floats, weights: Floats) -> Floats:
    return np.tensordot(seen, weights, axes=((3, 4, 5), (1, 2, 3))).astype(np.float32)


def _spread(columns: Floats, shape: tuple[int, ...], stride: int) -> Floats:
    """The transpose of `patches`: add every window back to where it was taken."""
    before, after = padding(shape[1], stride)
    padded = np.zeros((shape[0], shape[1] + before + after, shape[2] + before + after, shape[3]), np.float32)
    height, width = columns.shape[1:3]
    for y in range(3):
        for x in range(3):
            padded[:, y : y + stride * height : stride, x : x + stride * width : stride] += columns[:, :, :, y, x]
    return padded[:, before : before + shape[1], before : before + shape[2]]
