"""How each operator of a .tflite file becomes operators of the program."""

from collections.abc import Callable

from nexus_edge.proofs.importers.graph import Operator
from nexus_edge.proofs.importers.lowering import Lowering
from nexus_edge.proofs.importers.operators.contractions import lower_convolution, lower_fully_connected
from nexus_edge.proofs.importers.operators.elementwise import lower_elementwise
from nexus_edge.proofs.importers.operators.movement import lower_concatenation, lower_reshape, lower_strided_slice, lower_transpose
from nexus_edge.proofs.importers.operators.padding import lower_pad
from nexus_edge.proofs.importers.operators.pooling import lower_mean, lower_pool
from nexus_edge.proofs.importers.operators.unary import lower_activation, lower_dequantize, lower_quantize, lower_softmax

LOWERINGS: dict[str, Callable[[Lowering, Operator], None]] = {
    "ADD": lower_elementwise,
    "AVERAGE_POOL_2D": lower_pool,
    "CONCATENATION": lower_concatenation,
    "CONV_2D": lower_convolution,
    "DEPTHWISE_CONV_2D": lower_convolution,
    "DEQUANTIZE": lower_dequantize,
    "EXPAND_DIMS": lower_reshape,
    "FULLY_CONNECTED": lower_fully_connected,
    "HARD_SWISH": lower_activation,
    "LOGISTIC": lower_activation,
    "MAX_POOL_2D": lower_pool,
    "MEAN": lower_mean,
    "MUL": lower_elementwise,
    "PAD": lower_pad,
    "PADV2": lower_pad,
    "QUANTIZE": lower_quantize,
    "RELU": lower_activation,
    "RELU6": lower_activation,
    "RELU_N1_TO_1": lower_activation,
    "RESHAPE": lower_reshape,
    "SOFTMAX": lower_softmax,
    "SQUEEZE": lower_reshape,
    "STRIDED_SLICE": lower_strided_slice,
    "SUB": lower_elementwise,
    "TANH": lower_activation,
    "TRANSPOSE": lower_transpose,
}

__all__ = ["LOWERINGS"]
