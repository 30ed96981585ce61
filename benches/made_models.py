"""Write `.tflite` models of chosen sizes, weights at random: `made_models.py FOLDER`.

The multi-layer perceptron is the one whose proving time others publish; the convolutional networks are one network at several resolutions, to
show how time and memory grow.
"""

import argparse
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from tflite_writer import ModelWriter

LAYERS = (784, 128, 10)
SIDES = (16, 32, 64, 128)
CHANNELS = (16, 32, 32)
SCALE = 0.05


def main() -> int:
    """Write all models."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mlp_784_128_10.tflite").write_bytes(perceptron())
    for side in SIDES:
        (folder / f"convnet_{side:03}.tflite").write_bytes(convnet(side))
    return 0


def perceptron() -> bytes:
    """784-128-10 with ReLU between."""
    rng = np.random.default_rng(1)
    model = ModelWriter()
    x = model.input("int8", [1, LAYERS[0]], SCALE, 0)
    for inputs, outputs in pairwise(LAYERS):
        last = outputs == LAYERS[-1]
        scale = float(np.float32(0.4 / np.sqrt(inputs) / 50))
        weights = model.constant(rng.integers(-127, 128, (outputs, inputs), dtype=np.int8), scale)
        bias = model.constant(rng.integers(-500, 500, outputs, dtype=np.int32), SCALE * scale)
        y = model.tensor("int8", [1, outputs], SCALE, 0 if last else -128)
        x = model.add("FULLY_CONNECTED", [x, weights, bias], y, fused_activation_function=0 if last else 1)
    return model.finish(x)


def convnet(side: int) -> bytes:
    """Three 3 x 3 convolutions with ReLU on `side x side` pixels."""
    rng = np.random.default_rng(2)
    model = ModelWriter()
    x, channels = model.input("int8", [1, side, side, 3], SCALE, 0), 3
    for outputs in CHANNELS:
        scales = (rng.uniform(0.5, 1, outputs) * 0.4 / np.sqrt(9 * channels) / 50).astype(np.float32)
        weights = model.constant(rng.integers(-127, 128, (outputs, 3, 3, channels), dtype=np.int8), scales.tolist())
        bias = model.constant(rng.integers(-500, 500, outputs, dtype=np.int32), (np.float32(SCALE) * scales).tolist())
        y = model.tensor("int8", [1, side, side, outputs], SCALE, -128)
        x = model.add("CONV_2D", [x, weights, bias], y, padding=0, stride_w=1, stride_h=1, fused_activation_function=1)
        channels = outputs
    return model.finish(x)


if __name__ == "__main__":
    sys.exit(main())
