"""Whatever the bytes: a model or a typed error, in bounded time and memory."""

import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nexus_edge.errors import MalformedModel, ModelError
from nexus_edge.proofs.importers import import_tflite
from nexus_edge.proofs.importers.schema import parse
from tests.support.cases import CASES
from tests.support.one_operator import Quantized, unary
from tests.support.shared import MODELS
from tflite_writer import ModelWriter

MUTATIONS = 150
SECONDS = 2.0
"""For any small file; an honest one takes milliseconds."""

WORDS = [0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 16, 1 << 24]


def _base(name: str) -> bytes:
    return CASES[name](np.random.default_rng(5), "int8").model


def _mutations(base: bytes, rng: np.random.Generator, count: int, start: int = 0) -> Iterator[bytes]:
    """Bits flipped, bytes and aligned words replaced, words copied over their neighbours; one to five at a time."""
    for _ in range(count):
        data = bytearray(base)
        for _ in range(int(rng.choice([1, 1, 2, 5]))):
            at = int(rng.integers(start, len(data)))
            word = at & ~3
            match int(rng.integers(4)):
                case 0:
                    data[at] ^= 1 << int(rng.integers(8))
                case 1:
                    data[at] = int(rng.integers(256))
                case 2:
                    data[word : word + 4] = int(rng.choice([*WORDS, len(base)])).to_bytes(4, "little")
                case _:
                    data[word : word + 4] = data[max(word - 4, 0) : max(word, 4)]
        yield bytes(data[: len(base)])


def _outcome(data: bytes) -> str:
    """What became of a file; anything but a model or a typed error is raised."""
    started = time.perf_counter()
    try:
        import_tflite(data, "fuzzed")
        outcome = "model"
    except ModelError as error:
        outcome = type(error).__name__ if str(error) else "an error without words"
    assert time.perf_counter() - started < SECONDS
    return outcome


@pytest.mark.parametrize("name", CASES)
def test_mutated_files(name: str) -> None:
    base = _base(name)
    outcomes = {_outcome(data) for data in _mutations(base, np.random.default_rng(zlib.crc32(name.encode())), MUTATIONS)}
    assert outcomes == {"model", "MalformedModel", "UnsupportedModel"}


@pytest.mark.parametrize("name", ["network", "concatenation", "shape arithmetic"])
def test_truncated_and_extended_files(name: str) -> None:
    base = _base(name)
    assert {_outcome(base[:size]) for size in range(0, len(base), 7)} <= {"MalformedModel", "UnsupportedModel", "model"}
    assert _outcome(base + bytes(100)) == "model"


@pytest.mark.parametrize("path", [p for p in MODELS if p.stat().st_size < 200_000], ids=lambda path: path.stem)
def test_mutated_real_models(path: Path) -> None:
    base = path.read_bytes()
    assert "MalformedModel" in {_outcome(data) for data in _mutations(base, np.random.default_rng(1), 100, max(0, len(base) - 12_000))}


@pytest.mark.parametrize(
    "data", [b"", b"TFL3", bytes(8), b"\x00\x00\x00\x00TFL3", b"\xff\xff\xff\xffTFL3", b"\x1c\x00\x00\x00TFL3" + bytes(64)]
)
def test_no_model_at_all(data: bytes) -> None:
    with pytest.raises(MalformedModel):
        import_tflite(data, "nothing")


def test_shared_tables_do_not_multiply() -> None:
    """A vector of n offsets to one operator with n inputs describes n^2 inputs in 8 n bytes."""
    m = ModelWriter()
    x, y = m.input("int8", [4], 0.1), m.tensor("int8", [4], 0.1)
    m.add("CONCATENATION", [x] * 20_000, y, axis=0, fused_activation_function=0)
    m.operators *= 20_000
    file = m.finish(y)
    started = time.perf_counter()
    with pytest.raises(MalformedModel, match="larger than the file"):
        parse(file)
    assert time.perf_counter() - started < SECONDS


def test_small_files_of_large_pools_are_refused_early() -> None:
    """Every position of a ragged pool has its own requantisation."""
    m = ModelWriter()
    x = m.input("int8", [1, 1400, 1400, 1], 0.1)
    options = {"padding": 0, "stride_w": 1, "stride_h": 1, "filter_width": 3, "filter_height": 3, "fused_activation_function": 0}
    for _ in range(60):
        x = m.add("AVERAGE_POOL_2D", [x], m.tensor("int8", [1, 1400, 1400, 1], 0.1), **options)
    assert _outcome(m.finish(x)) == "UnsupportedModel"


def test_names_are_printable_bounded_and_unique() -> None:
    m = ModelWriter()
    x = m.input("int8", [4], 0.1, name="a\x1b[31m\n" + "b" * 1000)
    y = m.add("RELU", [x], m.tensor("int8", [4], 0.1, name="same"))
    z = m.add("RELU6", [y], m.tensor("int8", [4], 0.1, name="same"))
    ports = import_tflite(m.finish(z), "names").describe()
    name = ports["inputs"][0]["name"]
    assert name.startswith("a?[31m?")
    assert len(name) <= 256
    assert ports["outputs"][0]["name"] == "same#2"


def test_type_and_identifier_of_the_file() -> None:
    good = unary("RELU", [4], Quantized(), Quantized())
    with pytest.raises(MalformedModel, match="TFL3"):
        import_tflite(good[:4] + b"TFL2" + good[8:], "old")
