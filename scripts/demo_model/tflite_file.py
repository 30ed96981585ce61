"""The quantised network as a `.tflite` file."""

import numpy as np
from tflite import ActivationFunctionType, Padding

from demo_model.network import CLASSES, STRIDES
from demo_model.quantisation import Layer, Quantised, Scale
from tflite_writer import ModelWriter


def encode(network: Quantised) -> bytes:
    """The file: conv, conv, reshape, fully connected, softmax."""
    file = ModelWriter(description="nexus-edge digits")
    image = file.input("int8", [1, 8, 8, 1], *_tensor(network.image), name="image")
    hidden1 = file.tensor("int8", [1, 8, 8, 8], *_tensor(network.conv1.output), name="hidden1")
    hidden2 = file.tensor("int8", [1, 4, 4, 16], *_tensor(network.conv2.output), name="hidden2")
    flat = file.tensor("int8", [1, 256], *_tensor(network.conv2.output), name="flat")
    logits = file.tensor("int8", [1, CLASSES], *_tensor(network.dense.output), name="logits")
    probabilities = file.tensor("int8", [1, CLASSES], *_tensor(network.probabilities), name="probabilities")

    conv1, conv2, dense = (_weights(file, name, getattr(network, name)) for name in ("conv1", "conv2", "dense"))
    shape = file.constant(np.array([1, 256], np.int32), name="shape")
    for source, weights, output, stride in ((image, conv1, hidden1, STRIDES[0]), (hidden1, conv2, hidden2, STRIDES[1])):
        options = {
            "padding": Padding.SAME,
            "stride_w": stride,
            "stride_h": stride,
            "fused_activation_function": ActivationFunctionType.RELU,
        }
        file.add("CONV_2D", [source, *weights], output, **options)
    file.add("RESHAPE", [hidden2, shape], flat, new_shape=[1, 256])
    file.add("FULLY_CONNECTED", [flat, *dense], logits)
    file.add("SOFTMAX", [logits], probabilities, beta=1.0)
    return file.finish(probabilities)


def _tensor(scale: Scale) -> tuple[float, int]:
    return float(scale.scale[0]), scale.zero_point


def _weights(file: ModelWriter, name: str, layer: Layer) -> tuple[int, int]:
    weights = file.constant(layer.weights, layer.weight_scale.scale.tolist(), name=f"{name}/weights")
    return weights, file.constant(layer.bias, layer.bias_scale.scale.tolist(), name=f"{name}/bias")
