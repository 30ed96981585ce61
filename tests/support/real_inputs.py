"""Real data for the shared models, as far as there is some, in the models' own types."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nexus_edge.proofs.ports import Port
from tests.support.shared import SHARED


def real_inputs(model: str, port: Port) -> list[NDArray[Any]]:
    """Real inputs of a model, by the name of its file; none if there are none."""
    folder = SHARED / "models" / "mlperf-tiny"
    match model:
        case "kws_ref_model":
            return [np.load(folder / "kws_input_g_kws_inputs.npy").astype(np.int8).reshape(port.shape)]
        case "str_ww_ref_model":
            return list(_spectrograms(port))
        case "person_detect_patched":
            # The model wants the file's bytes as they are.
            names = ("person.bmp", "no_person.bmp")
            bitmaps = [(SHARED / "models" / "tflite-micro" / "testdata" / name).read_bytes() for name in names]
            return [np.frombuffer(raw[-(96 * 96) :], np.int8).reshape(port.shape) for raw in bitmaps]
        case "mobilenet_v2_quantized_1x3x224x224":
            return [_quantized((_crop(p, 224) / 127.5 - 1).transpose(2, 0, 1)[None], port) for p in _photos()]
        case "vww_96_int8":
            return [_quantized(_crop(p, 96)[None] / 255, port) for p in _photos()]
        case "pretrainedResnet_quant" | "pretrainedResnet_large_int8":
            return [_quantized(_crop(p, 32)[None], port) for p in _photos()]
        case "hello_world_int8":
            return [np.full(port.shape, value, np.int8) for value in range(-128, 128)]
    return []


def _quantized(real: NDArray[Any], port: Port) -> NDArray[Any]:
    assert port.scale is not None
    return np.clip(np.round(real / port.scale) + port.zero_point, -128, 127).astype(np.int8)


def _spectrograms(port: Port) -> Iterator[NDArray[Any]]:
    with np.load(SHARED / "models" / "mlperf-tiny" / "sww_calibration_samples.npz") as archive:
        for name in archive.files:
            samples = np.asarray(archive[name])
            if samples.size % np.prod(port.shape) == 0:
                for sample in samples.reshape(-1, *port.shape):
                    yield _quantized(sample, port) if sample.dtype.kind == "f" else sample.astype(np.int8)


def _photos() -> list[NDArray[np.uint8]]:
    """Uncompressed 24-bit bitmaps."""
    photos = []
    for path in sorted((SHARED / "data" / "photos").glob("*.bmp")):
        raw = path.read_bytes()
        start, width, height = (int.from_bytes(raw[at : at + 4], "little", signed=True) for at in (10, 18, 22))
        stride = -(-width * 3 // 4) * 4
        pixels = np.frombuffer(raw, np.uint8, stride * abs(height), start).reshape(abs(height), stride)[:, : width * 3]
        photos.append(pixels.reshape(abs(height), width, 3)[:: -1 if height > 0 else 1, :, ::-1])
    return photos


def _crop(photo: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Nearest pixels of the whole picture."""
    rows, columns = (np.arange(size) * photo.shape[i] // size for i in (0, 1))
    return np.asarray(photo[np.ix_(rows, columns)])
