"""Runs a model here and in its reference runtime."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nexus_edge.proofs.model import Model
from tests.support.oracle import Oracle


def assert_agrees(model: Model, oracle: Oracle, file: bytes, inputs: Sequence[NDArray[Any]]) -> None:
    """Every output of every run is equal in type, shape and bits; `inputs[i][n]` is input `i` of run `n`."""
    ours = [model.run([array[n] for array in inputs]) for n in range(len(inputs[0]))]
    theirs = oracle.run(file, inputs)
    assert len(theirs) == len(model.outputs)
    for i, expected in enumerate(theirs):
        np.testing.assert_array_equal(np.stack([run[i] for run in ours]), expected, strict=True)
