"""What ships with the package: a small network that reads handwritten digits, and digits that it has not seen.

`digits.tflite` is made by `scripts/make_demo_model.py` from the digits of the UCI machine learning repository; see LICENSE.md here.
"""

from importlib.resources import files
from importlib.resources.abc import Traversable
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

_HERE: Traversable = files(__name__)


def demo_model() -> bytes:
    """The `.tflite` file: an 8x8 image in, ten probabilities out, all int8."""
    return (_HERE / "digits.tflite").read_bytes()


def demo_digits() -> list[tuple[NDArray[np.int8], int]]:
    """360 images as the model takes them, `(1, 8, 8, 1)` int8, each with the digit that it shows."""
    images, labels = (np.load(BytesIO((_HERE / name).read_bytes()), allow_pickle=False) for name in ("digits.npy", "labels.npy"))
    return [(image[None], int(label)) for image, label in zip(images, labels, strict=True)]
