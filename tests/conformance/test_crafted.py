"""Inputs that random ones never hit: multipliers that differ in their last bit, exact ties, every pair, undefined rows."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nexus_edge.errors import BadInput, UnsupportedModel
from nexus_edge.proofs.importers.quantization import Multiplier, quantize_multiplier, rescale, rescale_once
from nexus_edge.proofs.importers.schema import parse
from nexus_edge.proofs.model import Model
from tests.support.agreement import assert_agrees
from tests.support.cases import ints
from tests.support.one_operator import Quantized, biased, binary, unary, with_constants
from tests.support.oracle import Oracle, Refused
from tests.support.shared import MODELS

GetOracle = Callable[[str], Oracle]
KINDS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
SEMANTICS = [("tflm", "int8"), ("tflite-2.14", "int8"), ("tflite-2.14", "uint8"), ("litert-2.3-ref", "int8"), ("litert-2.3-ref", "uint8")]
RUNTIMES = ("tflm", "tflite-2.14", "litert-2.3-ref")
OUTPUTS = 64


def _separating(scales: tuple[float, float, float]) -> list[int]:
    """Accumulators that the float32 product of the scales, the double product, or one rounding instead of two send to other values."""
    double = quantize_multiplier(scales[0] * scales[1] / scales[2])
    single = quantize_multiplier(float(np.float32(scales[0]) * np.float32(scales[1])) / scales[2])
    ties = (np.arange(-120, 120) + 0.5) / (scales[0] * scales[1] / scales[2])
    near = (ties[np.abs(ties) < 2**31 - 100].astype(np.int64)[:, None] + np.arange(-40, 40)).reshape(-1)

    def values(multiplier: Multiplier) -> list[np.ndarray]:
        return [rescale(near, multiplier), rescale_once(near, multiplier)]

    results = np.stack(values(double) + values(single))
    return [int(acc) for acc in near[(results != results[0]).any(0)]]


def _scales(rng: np.random.Generator) -> tuple[float, float, float]:
    """Scales so small beside the output's that accumulators near 2^31 matter."""
    low, high = np.array([1e-3, 1e-4, 0.5]), np.array([0.05, 2e-3, 30])
    x, w, out = (float(v) for v in rng.uniform(low, high).astype(np.float32))
    return x, w, out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("semantics", "dtype", "per_channel"), [(*row, False) for row in SEMANTICS] + [(s, "int8", True) for s in RUNTIMES]
)
def test_multipliers_to_the_last_bit(semantics: str, dtype: str, per_channel: bool, kind: str, oracle: GetOracle) -> None:
    """One multiplier for all channels: a float32 product of scales in tflite-2.14's FULLY_CONNECTED and in every uint8 convolution."""
    rng, runtime, compared = np.random.default_rng(3), oracle(semantics), 0
    for _ in range(40):
        scales = _scales(rng)
        biases = _separating(scales)[:OUTPUTS]
        if len(biases) > 1:
            compared += _compare(biased(kind, dtype, scales, biases, per_channel=per_channel), semantics, runtime)
    assert compared >= 10


def _compare(file: bytes, semantics: str, runtime: Oracle) -> int:
    """1 if equal; 0 if refused, which LiteRT's FULLY_CONNECTED may be."""
    try:
        model = Model.from_tflite(file, "crafted", semantics)
    except UnsupportedModel as refused:
        if semantics != "litert-2.3-ref" or refused.kind != "FULLY_CONNECTED":
            raise
        return 0
    (port,) = model.inputs
    assert_agrees(model, runtime, file, [np.full((1, *port.shape), port.zero_point, port.dtype)])
    return 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype_semantics", SEMANTICS, ids=str)
def test_exact_ties(dtype_semantics: tuple[str, str], kind: str, oracle: GetOracle) -> None:
    """A multiplier of 2^-8: every second multiple of 128 lies between two outputs."""
    semantics, dtype = dtype_semantics
    biases = [128 * k + d for k in range(-9, 10) for d in (-1, 0, 1)]
    assert _compare(biased(kind, dtype, (2.0**-5, 2.0**-5, 2.0**-2), biases), semantics, oracle(semantics)) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", [0, 1, 3])
def test_dead_channels(kind: str, activation: int, oracle: GetOracle) -> None:
    """Biases near 2^30 saturate every output."""
    biases = [s * (1 << 30) + d for s in (-1, 1) for d in (-1, 0, 1)]
    assert _compare(biased(kind, "int8", (0.01, 0.01, 0.1), biases, activation), "tflm", oracle("tflm")) == 1


def _pairs() -> list[np.ndarray]:
    values = np.arange(-128, 128).astype(np.int8)
    return [np.repeat(values, 256).reshape(1, 256, 256), np.tile(values, 256).reshape(1, 256, 256)]


def _real_additions() -> list[bytes]:
    """The parameters of every ADD in the shared models, on all pairs."""
    files = []
    for path in MODELS:
        graph = parse(path.read_bytes())
        for op in graph.operators:
            if op.kind == "ADD":
                q = [Quantized(t.dtype, t.scales[0], t.zero_points[0]) for t in (graph.tensors[i] for i in (*op.inputs, *op.outputs))]
                files.append(binary("ADD", [(256, 256), (256, 256)], q, activation=op.integer("FusedActivationFunction")))
    return files


def test_all_pairs_of_real_additions(oracle: GetOracle) -> None:
    for file in _real_additions():
        assert_agrees(Model.from_tflite(file, "add"), oracle("tflm"), file, _pairs())


@pytest.mark.parametrize("kind", ["ADD", "SUB", "MUL"])
def test_all_pairs(kind: str, oracle: GetOracle) -> None:
    rng = np.random.default_rng(5)
    for _ in range(8):
        s = [float(np.float32(v)) for v in np.exp(rng.uniform(-5, 0, 2))]
        out = float(np.float32(s[0] * s[1] * 70 if kind == "MUL" else max(s) * rng.uniform(0.6, 2)))
        q = [Quantized("int8", scale, int(rng.integers(-128, 128))) for scale in (*s, out)]
        file = binary(kind, [(256, 256), (256, 256)], q, activation=int(rng.integers(4)))
        assert_agrees(Model.from_tflite(file, kind), oracle("tflm"), file, _pairs())


# Scales for which float32 and double quotients lead to other multipliers, found by search.
SUM_SCALES = [
    (0.04588522017002106, 0.06882783025503159, 0.09177044034004211),
    (0.5392484664916992, 0.9436848163604736, 1.0784969329833984),
    (0.008739576674997807, 0.0065546827390789986, 0.017479153349995613),
]
PRODUCT_SCALES = [
    (0.008250788785517216, 0.26185378432273865, 0.06913600862026215),
    (0.007254379335790873, 0.013460123911499977, 0.00019528968550730497),
    (0.16280671954154968, 0.025963425636291504, 0.013873297721147537),
    (0.030153913423419, 0.05576750636100769, 0.00422050803899765),
]
MEANS = [
    (0.823844313621521, 0.5380207896232605, 64, 480),
    (0.046068187803030014, 0.04512802138924599, 256, -20688),
    (0.4427225887775421, 32.381996154785156, 64, 2340),
]
"""Scales of input and output, number of elements, and their sum."""
SWISH_SCALES = [
    (0.08838511258363724, 0.06351184099912643, 22),
    (0.05916620045900345, 0.10180146992206573, -70),
    (0.010259047150611877, 0.019166365265846252, 68),
    (0.005165483802556992, 0.007280893623828888, -8),
    (0.3431898355484009, 0.145574688911438, 28),
    (0.19038179516792297, 0.1199582889676094, -106),
]


@pytest.mark.parametrize("semantics", RUNTIMES)
@pytest.mark.parametrize("kind", ["ADD", "SUB"])
@pytest.mark.parametrize("scales", SUM_SCALES)
def test_multipliers_of_sums_are_doubles(kind: str, scales: tuple[float, ...], semantics: str, oracle: GetOracle) -> None:
    file = binary(kind, [(256, 256), (256, 256)], [Quantized("int8", scale, zero) for scale, zero in zip(scales, (7, -90, 0), strict=True)])
    assert_agrees(Model.from_tflite(file, kind, semantics), oracle(semantics), file, _pairs())


@pytest.mark.parametrize("semantics", RUNTIMES)
@pytest.mark.parametrize("scales", PRODUCT_SCALES)
def test_multipliers_of_products(scales: tuple[float, ...], semantics: str, oracle: GetOracle) -> None:
    """Doubles in TFLM, float32 in the others."""
    file = binary("MUL", [(256, 256), (256, 256)], [Quantized("int8", scale) for scale in scales])
    assert_agrees(Model.from_tflite(file, "MUL", semantics), oracle(semantics), file, _pairs())


@pytest.mark.parametrize("semantics", RUNTIMES)
@pytest.mark.parametrize(("scale", "out_scale"), [(0.16280671954154968, 0.020037749782204628), (0.398227334022522, 0.009370055049657822)])
def test_multipliers_of_requantisations_are_doubles(scale: float, out_scale: float, semantics: str, oracle: GetOracle) -> None:
    file = unary("QUANTIZE", (256,), Quantized(scale=scale), Quantized(scale=out_scale))
    values = np.arange(-128, 128).astype(np.int8)
    assert_agrees(Model.from_tflite(file, "QUANTIZE", semantics), oracle(semantics), file, [values[None]])


@pytest.mark.parametrize("semantics", RUNTIMES)
@pytest.mark.parametrize(("scale", "out_scale", "count", "total"), MEANS)
def test_multipliers_of_means_are_doubles(
    scale: float, out_scale: float, count: int, total: int, semantics: str, oracle: GetOracle
) -> None:
    values = np.full(count, total // count, np.int8)
    values[: total % count] += 1
    file = with_constants("MEAN", (1, count, 1), Quantized(scale=scale), [ints([1])], (1, 1), Quantized(scale=out_scale), keep_dims=False)
    assert_agrees(Model.from_tflite(file, "MEAN", semantics), oracle(semantics), file, [values.reshape(1, 1, count, 1)])


@pytest.mark.parametrize("semantics", RUNTIMES)
@pytest.mark.parametrize(("scale", "out_scale", "zero"), SWISH_SCALES)
def test_multipliers_of_hard_swish(scale: float, out_scale: float, zero: int, semantics: str, oracle: GetOracle) -> None:
    """Doubles in TFLM, float32 in the others."""
    file = unary("HARD_SWISH", (256,), Quantized(scale=scale, zero=zero), Quantized(scale=out_scale))
    values = np.arange(-128, 128).astype(np.int8)
    assert_agrees(Model.from_tflite(file, "swish", semantics), oracle(semantics), file, [values[None]])


@pytest.mark.parametrize("semantics", RUNTIMES)
@pytest.mark.parametrize("scale", [0.6666666865348816, 0.4000000059604645, 2.4000000953674316, 1.7142857313156128, 0.2222222238779068])
@pytest.mark.parametrize("activation", [2, 3])
def test_bounds_of_activations_are_float32_quotients(activation: int, scale: float, semantics: str, oracle: GetOracle) -> None:
    """These scales divide 6 or 1 to a tie in float32 and to a little less in double."""
    q = Quantized("int8", scale, -100)
    file = binary("ADD", [(256, 256), (256, 256)], [q, q, q], activation)
    assert_agrees(Model.from_tflite(file, "bound", semantics), oracle(semantics), file, _pairs())


def test_softmax_whose_exponentials_sum_to_512_is_undefined(oracle: GetOracle) -> None:
    file = unary("SOFTMAX", (1, 600), Quantized(scale=0.1), Quantized(scale=1 / 256, zero=-128), beta=1.0)
    model, flat = Model.from_tflite(file, "softmax"), np.zeros((1, 600), np.int8)
    with pytest.raises(BadInput):
        model.run([flat])
    with pytest.raises(Refused):
        oracle("tflm").run(file, [flat[None]])
    flat[0, ::2] = -128
    assert_agrees(model, oracle("tflm"), file, [flat[None]])


@pytest.mark.parametrize(
    ("begin", "end", "strides", "masks", "expected"),
    [
        ((0, 1), (0, 3), (1, 1), {"ellipsis_mask": 1}, np.s_[..., 1:3]),
        ((1, 0, 1), (3, 0, 4), (1, 1, 1), {"ellipsis_mask": 2}, np.s_[1:3, ..., 1:4]),
        ((0, 0, 0), (0, 2, 0), (1, 1, 1), {"new_axis_mask": 1, "end_mask": 4}, np.s_[None, 0:2, 0:]),
        ((2, 0, 3), (0, 0, 0), (1, 1, -1), {"shrink_axis_mask": 1, "begin_mask": 4, "end_mask": 6}, np.s_[2, 0:, ::-1]),
        ((0, 2, 0), (0, 3, 1), (1, 1, 1), {"ellipsis_mask": 1, "shrink_axis_mask": 2, "end_mask": 4}, np.s_[..., 2, 0:]),
    ],
)
def test_slices_with_ellipsis_and_new_axes(
    begin: tuple[int, ...], end: tuple[int, ...], strides: tuple[int, ...], masks: dict[str, Any], expected: Any, oracle: GetOracle
) -> None:
    """TFLM ignores these masks; they mean what they mean everywhere else."""
    x = np.arange(3 * 4 * 5).astype(np.int8).reshape(3, 4, 5)
    want = x[expected]
    bounds = [np.array(v, np.int32) for v in (begin, end, strides)]
    file = with_constants("STRIDED_SLICE", x.shape, Quantized(), bounds, want.shape, **masks)
    model = Model.from_tflite(file, "slice", "tflite-2.14")
    np.testing.assert_array_equal(model.run([x])[0], want, strict=True)
    assert_agrees(model, oracle("tflite-2.14"), file, [x[None]])
