"""Inputs and outputs of a model: what a user's arrays are, and how float arrays become the program's integers.

A port at a float edge takes `float32`. The conversion is the reference runtime's QUANTIZE and DEQUANTIZE; it happens outside the
proof, which speaks of the integers:

    q = clamp(round_half_away(x / scale) + zero_point)        x / scale in float32
    x = scale (q - zero_point)                                rounded once to float32
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nexus_edge.errors import BadInput

Array = NDArray[Any]


class TensorType(NamedTuple):
    """What a commitment binds beside the values: element type, dimensions, and quantisation."""

    dtype: str
    dims: tuple[int, ...]
    scale: float | None
    zero_point: int


@dataclass(frozen=True)
class Port:
    """One input or output of a model."""

    name: str
    storage: np.dtype[Any]
    """The program's element type: int8 or uint8."""
    shape: tuple[int, ...]
    scale: float | None
    zero_point: int
    float_edge: bool

    @classmethod
    def from_native(cls, port: Mapping[str, Any]) -> "Port":
        """A port as the native module describes it."""
        return cls(
            name=port["name"],
            storage=np.dtype(port["dtype"]),
            shape=tuple(port["shape"]),
            scale=port["scale"],
            zero_point=port["zero_point"],
            float_edge=port["float_edge"],
        )

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the user's array."""
        return np.dtype(np.float32) if self.float_edge else self.storage

    @property
    def tensor(self) -> TensorType:
        """What a commitment to it speaks of."""
        return TensorType(self.storage.name, self.shape, self.scale, self.zero_point)

    def describe(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "dtype": self.dtype.name,
            "shape": list(self.shape),
            "scale": self.scale,
            "zero_point": self.zero_point,
            "quantized_dtype": self.storage.name,
        }

    def check(self, array: Array) -> None:
        """Raise `BadInput` unless the array has exactly this port's type and shape."""
        if array.dtype != self.dtype or array.shape != self.shape:
            raise BadInput(
                f"array for {self.name!r} does not fit",
                f"expected {self.dtype.name} {list(self.shape)}, got {array.dtype.name} {list(array.shape)}",
            )

    def to_integers(self, array: Array) -> Array:
        """The program's integers for a user's array."""
        self.check(array)
        if not self.float_edge:
            return np.ascontiguousarray(array)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = array / self._scale()
        if not (np.abs(scaled) < 2.0**31).all():  # also refuses NaN
            raise BadInput(
                f"array for {self.name!r} does not fit", "values that are not finite, or beyond 2^31 scales, have no defined quantisation"
            )
        rounded = np.trunc(
            scaled.astype(np.float64) + np.copysign(0.5, scaled)
        )  # exact: float64 holds x + 1/2 for every float32 below 2^31
        limits = np.iinfo(self.storage)
        integers: Array = np.clip(rounded + self.zero_point, limits.min, limits.max).astype(self.storage)
        return integers

    def from_integers(self, integers: Array) -> Array:
        """The user's array for the program's integers."""
        if not self.float_edge:
            return integers
        centred = integers.astype(np.int32) - self.zero_point
        return (self._scale() * centred.astype(np.float32)).astype(np.float32)

    def _scale(self) -> np.float32:
        if self.scale is None:
            raise BadInput(f"{self.name!r} is a float tensor without a scale")
        return np.float32(self.scale)


def to_integers(ports: Sequence[Port], arrays: Sequence[Array]) -> list[Array]:
    """The program's integers for one array a port."""
    if len(arrays) != len(ports):
        raise BadInput("wrong number of arrays", f"expected {len(ports)} ({', '.join(port.name for port in ports)}), got {len(arrays)}")
    return [port.to_integers(array) for port, array in zip(ports, arrays, strict=True)]
