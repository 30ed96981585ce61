"""The model that ships with the package is what its script makes, and reads digits."""

import numpy as np
import pytest
from tflite_micro import runtime

import make_demo_model
from demo_model.network import Parameters, forward, gradients, padding, patches
from demo_model.quantisation import activation, layer
from nexus_edge.data import demo_digits, demo_model


def test_the_script_makes_the_committed_file() -> None:
    assert make_demo_model.make() == demo_model()


def test_reference_kernels_read_the_held_out_digits() -> None:
    interpreter = runtime.Interpreter.from_bytes(demo_model())
    right = 0
    digits = demo_digits()
    for image, label in digits:
        interpreter.set_input(image, 0)
        interpreter.invoke()
        right += int(interpreter.get_output(0).argmax()) == label
    assert right / len(digits) >= 0.95


@pytest.mark.parametrize(("size", "stride", "expected"), [(8, 1, (1, 1)), (8, 2, (0, 1)), (7, 2, (1, 1))])
def test_same_padding(size: int, stride: int, expected: tuple[int, int]) -> None:
    assert padding(size, stride) == expected


def test_patches_are_what_a_window_sees() -> None:
    image = np.arange(64, dtype=np.float32).reshape(1, 8, 8, 1)
    seen = patches(image, 2)
    assert seen.shape == (1, 4, 4, 3, 3, 1)
    assert seen[0, 1, 1, :, :, 0].tolist() == image[0, 2:5, 2:5, 0].tolist()
    assert seen[0, 3, 3, 2].tolist() == [[0.0], [0.0], [0.0]]


def test_gradients_are_the_slopes_of_the_loss() -> None:
    generator = np.random.default_rng(0)
    parameters = Parameters.random(0)
    images = generator.random((4, 8, 8, 1), dtype=np.float32)
    labels = np.array([3, 1, 4, 1])

    def loss() -> float:
        logits = forward(parameters, images).logits.astype(np.float64)
        return float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(4), labels]).mean())

    slopes = gradients(parameters, forward(parameters, images), labels).arrays()
    for name, array in parameters.arrays().items():
        place = np.unravel_index(np.abs(slopes[name]).argmax(), array.shape)
        before, step = array[place].copy(), np.float32(1e-2)
        array[place] = before + step
        above = loss()
        array[place] = before - step
        below = loss()
        array[place] = before
        assert (above - below) / (2 * step) == pytest.approx(slopes[name][place], rel=0.02)


def test_weights_are_quantised_per_channel() -> None:
    weights = np.array([[1.0, -0.5], [0.001, 0.002]], np.float32)
    made = layer(
        weights, np.array([0.5, 0.0], np.float32), activation(np.float32(0), np.float32(2.55)), activation(np.float32(-1), np.float32(2))
    )
    assert made.weights.tolist() == [[127, -64], [64, 127]]
    assert made.bias.tolist() == [round(0.5 / (0.01 / 127)), 0]
    assert made.output.zero_point == -43


def test_activation_scales_hold_zero() -> None:
    assert activation(np.float32(0), np.float32(2.55)).zero_point == -128
    assert activation(np.float32(-2.55), np.float32(0)).zero_point == 127
