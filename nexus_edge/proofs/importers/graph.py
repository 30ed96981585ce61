"""A model file as plain, bounded, immutable data: what is left of a .tflite file once it has been parsed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nexus_edge.errors import MalformedModel, UnsupportedModel

Option = int | float | str | tuple[int, ...]


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the file. `data` is a read-only view of the file if the tensor is constant."""

    index: int
    name: str
    dtype: str
    dims: tuple[int, ...]
    scales: tuple[float, ...] = ()
    """float32 values, positive and finite; one for each slice along `axis`, or one."""
    zero_points: tuple[int, ...] = ()
    axis: int = 0
    data: NDArray[Any] | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.dims, dtype=np.int64))


@dataclass(frozen=True)
class Operator:
    """An operator of the file: absent optional inputs are -1. `result` is its first output, which errors name that are about no other tensor."""

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, Option] = field(default_factory=dict)
    result: TensorInfo | None = None

    def unsupported(self, why: str, tensor: TensorInfo | None = None, hint: str = "") -> UnsupportedModel:
        """The error that refuses this operator."""
        at = tensor or self.result
        return UnsupportedModel(self._place(at), why, hint, operator=self.index, kind=self.kind, tensor=at.name if at else None)

    def malformed(self, why: str, tensor: TensorInfo | None = None) -> MalformedModel:
        """The error that says the file is wrong here."""
        at = tensor or self.result
        return MalformedModel(self._place(at), why, operator=self.index, kind=self.kind, tensor=at.name if at else None)

    def integer(self, name: str, default: int = 0) -> int:
        """An integer option; the default also where the file has no options."""
        value = self.options.get(name, default)
        if not isinstance(value, int):
            raise self.malformed(f"option {name} is no integer")
        return value

    @property
    def label(self) -> str:
        """How the native module's errors name it."""
        return f"operator {self.index} ({self.kind})" if self.index >= 0 else f"the model's {self.kind}"

    def _place(self, tensor: TensorInfo | None) -> str:
        return self.label if tensor is None else f"{self.label}, tensor {tensor.index} ({tensor.name!r})"


@dataclass(frozen=True)
class Graph:
    """The only subgraph of a file, operators in execution order."""

    tensors: tuple[TensorInfo, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
