"""Train the network with Adam on scikit-learn's digits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo_model.network import Activations, Floats, Parameters, forward, gradients

SEED = 1
EPOCHS = 80
BATCH = 32
HELD_OUT = 360


@dataclass(frozen=True)
class Digits:
    """8x8 images as pixels 0..16, (N, 8, 8, 1), and their labels."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    @property
    def images(self) -> Floats:
        """In [0, 1]."""
        return (self.pixels / np.float32(16)).astype(np.float32)


def load_digits() -> tuple[Digits, Digits]:
    """Digits to train on and digits held out, in a fixed random order."""
    from sklearn.datasets import load_digits as load

    bundle = load()
    order = np.random.default_rng(SEED).permutation(len(bundle.target))
    pixels = bundle.images.astype(np.uint8)[order, :, :, None]
    labels = bundle.target.astype(np.int64)[order]
    return Digits(pixels[HELD_OUT:], labels[HELD_OUT:]), Digits(pixels[:HELD_OUT], labels[:HELD_OUT])


def train(digits: Digits) -> Parameters:
    """Adam with a step that falls linearly to zero, on images shifted by up to one pixel."""
    generator = np.random.default_rng(SEED)
    parameters = Parameters.random(SEED)
    first = {name: np.zeros_like(array) for name, array in parameters.arrays().items()}
    second = {name: np.zeros_like(array) for name, array in parameters.arrays().items()}
    images, labels = digits.images, digits.labels
    batches = len(labels) // BATCH
    steps = EPOCHS * batches
    for step in range(steps):
        if step % batches == 0:
            order = generator.permutation(len(labels))
        chosen = order[step % batches * BATCH :][:BATCH]
        dy, dx = generator.integers(0, 3, 2)
        batch = np.pad(images[chosen], ((0, 0), (1, 1), (1, 1), (0, 0)))[:, dy : dy + 8, dx : dx + 8]
        slope = gradients(parameters, forward(parameters, batch), labels[chosen]).arrays()
        rate = 3e-3 * (1 - step / steps) * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
        for name, array in parameters.arrays().items():
            first[name] += 0.1 * (slope[name] - first[name])
            second[name] += 0.001 * (slope[name] ** 2 - second[name])
            array -= (rate * first[name] / (np.sqrt(second[name]) + 1e-8)).astype(np.float32)
    return parameters


def largest(parameters: Parameters, digits: Digits) -> dict[str, Floats]:
    """Ranges of the activations over all images: what the quantiser calibrates by."""
    seen: Activations = forward(parameters, digits.images)
    return {
        name: np.array([values.min(), values.max()], np.float32)
        for name, values in (("hidden1", seen.hidden1), ("hidden2", seen.hidden2), ("logits", seen.logits))
    }


def accuracy(parameters: Parameters, digits: Digits) -> float:
    """Share of images whose largest logit is the label."""
    return float((forward(parameters, digits.images).logits.argmax(axis=1) == digits.labels).mean())
