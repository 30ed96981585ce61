"""Index arithmetic of shapes: windows, refinements, broadcasts, slices. No tensor data here."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

Dims = tuple[int, ...]
Pair = tuple[int, int]
Range = tuple[int, int, int, int]
"""One dimension of a view's piece: `(dst_start, length, src_start, step)`."""

SAME, VALID = 0, 1


@dataclass(frozen=True)
class Window:
    """Output `(oy, ox)`, tap `(ky, kx)` reads input `(oy sy + ky dy - py, ox sx + kx dx - px)` of the same image."""

    input: Pair
    output: Pair
    kernel: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)
    batch: int = 1

    @property
    def native(self) -> tuple[int, Pair, Pair, Pair, Pair, Pair, Pair]:
        """As the program builder takes it."""
        return self.batch, self.input, self.output, self.kernel, self.stride, self.pad, self.dilation

    @property
    def reaches_input(self) -> bool:
        """Whether no window lies before or behind the input: padding alone fills none."""
        first = all(self.pad[i] <= (self.kernel[i] - 1) * self.dilation[i] for i in (0, 1))
        return first and all((self.output[i] - 1) * self.stride[i] < self.input[i] + self.pad[i] for i in (0, 1))


def positions(dims: Dims) -> int:
    """Product of all dimensions but the last."""
    return prod(dims[:-1])


def sliding(size: int, kernel: int, stride: int, dilation: int, padding: int) -> tuple[int, int]:
    """Outputs and leading padding along one dimension, as the runtimes compute them; no outputs if the kernel does not fit."""
    extent = (kernel - 1) * dilation + 1
    if padding == SAME:
        output = -(-size // stride)
        return output, max((output - 1) * stride + extent - size, 0) // 2
    return max(-(-(size - extent + 1) // stride), 0), 0


def refinement(*shapes: Dims) -> Dims | None:
    """The coarsest dimensions from which each shape is got by merging neighbours; ones left out; `None` if there are none."""
    cuts = sorted({prod(shape[i:]) for shape in shapes for i in range(len(shape) + 1)})
    if any(larger % smaller for smaller, larger in pairwise(cuts)):
        return None
    return tuple(larger // smaller for smaller, larger in pairwise(cuts))[::-1] or (1,)


def transposition(dims: Dims, perm: Sequence[int]) -> tuple[Dims, Dims]:
    """`dims` and `perm` without dimensions of size 1, at least one left."""
    kept = [i for i, dim in enumerate(dims) if dim != 1]
    if not kept:
        return (1,), (0,)
    place = {axis: new for new, axis in enumerate(kept)}
    return tuple(dims[i] for i in kept), tuple(place[axis] for axis in perm if axis in place)


def broadcast(first: Dims, second: Dims) -> Dims | None:
    """The shape of an elementwise operator; `None` if the inputs do not fit."""
    rank = max(len(first), len(second))
    pairs = list(zip(padded(first, rank), padded(second, rank), strict=True))
    if any(a != b and 1 not in (a, b) for a, b in pairs):
        return None
    return tuple(max(pair) for pair in pairs)


def padded(dims: Dims, rank: int) -> Dims:
    """`dims` with ones in front."""
    return (1,) * (rank - len(dims)) + dims


def repeat(dims: Dims, target: Dims) -> list[Range]:
    """The view that broadcasts `dims` to `target` of the same rank."""
    return [(0, want, 0, 1 if have == want else 0) for have, want in zip(dims, target, strict=True)]


def whole(dims: Dims) -> list[Range]:
    """The view of everything."""
    return [(0, dim, 0, 1) for dim in dims]


@dataclass(frozen=True)
class Slice:
    """A strided slice: `ranges` over the source's dimensions, then read as `dims`."""

    ranges: list[Range]
    dims: Dims


def strided_slice(dims: Dims, begin: Sequence[int], end: Sequence[int], strides: Sequence[int], masks: dict[str, int]) -> Slice | None:
    """STRIDED_SLICE with masks `begin`, `end`, `ellipsis`, `new_axis`, `shrink`; `None` if it makes no sense or is empty."""

    def bit(name: str, i: int) -> bool:
        return bool(masks[name] >> i & 1)

    count = len(begin)
    if not len(end) == len(strides) == count <= 32 or 0 in strides or masks["ellipsis"].bit_count() > 1:
        return None
    taken = sum(not bit("new_axis", i) and not bit("ellipsis", i) for i in range(count))
    if taken > len(dims):
        return None
    ranges: list[Range] = []
    result: list[int] = []

    def keep(number: int) -> None:
        for dim in dims[len(ranges) : len(ranges) + number]:
            ranges.append((0, dim, 0, 1))
            result.append(dim)

    for i in range(count):
        if bit("ellipsis", i):
            keep(len(dims) - taken)
        elif bit("new_axis", i):
            result.append(1)
        else:
            dim = dims[len(ranges)]
            start, length = _slice_range(dim, begin[i], end[i], strides[i], bit("begin", i), bit("end", i), bit("shrink", i))
            if length == 0:
                return None
            ranges.append((0, length, start, strides[i] if length > 1 else 1))
            if not bit("shrink", i):
                result.append(length)
    keep(len(dims) - len(ranges))
    return Slice(ranges, tuple(result))


def _slice_range(dim: int, begin: int, end: int, stride: int, begin_mask: bool, end_mask: bool, shrink: bool) -> tuple[int, int]:
    """First index and number of indices along one dimension."""
    low, high = (0, dim) if stride > 0 else (-1, dim - 1)
    start = (low if stride > 0 else high) if begin_mask else min(max(begin + dim if begin < 0 else begin, low), high)
    if shrink:
        return start, int(stride > 0 and (begin_mask or -dim <= begin < dim))
    stop = (high if stride > 0 else low) if end_mask else min(max(end + dim if end < 0 else end, low), high)
    return start, max(-(-(stop - start) // stride), 0)
