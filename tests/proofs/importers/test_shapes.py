from math import prod
from typing import Any

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from nexus_edge.proofs.importers.shapes import SAME, VALID, Window, broadcast, refinement, sliding, strided_slice, transposition

dims = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple)


@given(dims, st.data())
def test_slices_are_those_of_numpy(shape: tuple[int, ...], data: st.DataObject) -> None:
    count = len(shape)
    bounds = st.lists(st.integers(-8, 8), min_size=count, max_size=count)
    begin, end = data.draw(bounds), data.draw(bounds)
    strides = data.draw(st.lists(st.sampled_from([1, 2, 3, -1, -2]), min_size=count, max_size=count))
    begin_mask, end_mask = data.draw(st.integers(0, 2**count - 1)), data.draw(st.integers(0, 2**count - 1))
    index = tuple(slice(None if begin_mask >> i & 1 else begin[i], None if end_mask >> i & 1 else end[i], strides[i]) for i in range(count))
    x = np.arange(prod(shape)).reshape(shape)
    masks = {"begin": begin_mask, "end": end_mask, "ellipsis": 0, "new_axis": 0, "shrink": 0}
    cut = strided_slice(shape, begin, end, strides, masks)
    assert (cut is None) == (x[index].size == 0)
    assume(cut is not None)
    assert cut is not None
    assert cut.dims == x[index].shape
    places = [start + step * np.arange(length) for _, length, start, step in cut.ranges]
    np.testing.assert_array_equal(x[np.ix_(*places)], x[index])


@given(dims, st.data())
def test_shrunk_and_new_axes_are_those_of_numpy(shape: tuple[int, ...], data: st.DataObject) -> None:
    begin: list[int] = []
    index: list[Any] = []
    masks = {"begin": 0, "end": 0, "ellipsis": 0, "new_axis": 0, "shrink": 0}
    for dim in shape:
        if data.draw(st.booleans()):
            masks["new_axis"] |= 1 << len(begin)
            begin.append(0)
            index.append(None)
        masks["shrink"] |= 1 << len(begin)
        begin.append(data.draw(st.integers(-dim, dim - 1)))
        index.append(begin[-1])
    cut = strided_slice(shape, begin, [0] * len(begin), [1] * len(begin), masks)
    x = np.arange(prod(shape)).reshape(shape)
    assert cut is not None
    assert cut.dims == x[tuple(index)].shape
    assert x[tuple(start for _, _, start, _ in cut.ranges)] == x[tuple(index)].reshape(-1)[0]


def test_slices_that_make_no_sense() -> None:
    none = {"begin": 0, "end": 0, "ellipsis": 0, "new_axis": 0, "shrink": 0}
    assert strided_slice((4,), [0], [4], [0], none) is None
    assert strided_slice((4,), [4], [5], [1], none | {"shrink": 1}) is None
    assert strided_slice((4,), [0, 0], [4, 4], [1, 1], none) is None
    assert strided_slice((4,), [0], [4, 4], [1], none) is None
    assert strided_slice((4, 4), [0, 0], [0, 0], [1, 1], none | {"ellipsis": 3}) is None


@given(dims, dims)
def test_refinement_regroups_both_shapes(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    fine = refinement(first, second)
    assume(fine is not None)
    assert fine is not None
    cuts = {prod(fine[i:]) for i in range(len(fine) + 1)}
    for shape in (first, second):
        assert {prod(shape[i:]) for i in range(len(shape) + 1)} <= cuts


def test_refinement_needs_common_factors() -> None:
    assert refinement((6, 4), (8, 3)) is None
    assert refinement((1, 1960), (1, 49, 40, 1)) == (49, 40)
    assert refinement((1, 1), (1,)) == (1,)


@given(dims, st.randoms(use_true_random=False))
def test_transposition_without_ones_moves_the_same(shape: tuple[int, ...], random: Any) -> None:
    perm = list(range(len(shape)))
    random.shuffle(perm)
    x = np.arange(prod(shape)).reshape(shape)
    fine, order = transposition(shape, perm)
    np.testing.assert_array_equal(x.reshape(fine).transpose(order).reshape(-1), x.transpose(perm).reshape(-1))


@given(dims, dims)
def test_broadcast_is_that_of_numpy(first: tuple[int, ...], second: tuple[int, ...]) -> None:
    try:
        expected: tuple[int, ...] | None = np.broadcast_shapes(first, second)
    except ValueError:
        expected = None
    assert broadcast(first, second) == expected


@given(st.integers(1, 20), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_windows_start_inside(size: int, kernel: int, stride: int, dilation: int) -> None:
    for padding in (SAME, VALID):
        output, pad = sliding(size, kernel, stride, dilation, padding)
        assume(output > 0)
        assert Window((size, 1), (output, 1), (kernel, 1), (stride, 1), (pad, 0), (dilation, 1)).reaches_input
        assert padding == VALID or output == -(-size // stride)


def test_padding_is_smaller_in_front() -> None:
    assert sliding(5, 2, 1, 1, SAME) == (5, 0)
    assert sliding(5, 4, 1, 1, SAME) == (5, 1)
    assert sliding(2, 5, 1, 1, VALID) == (0, 0)
