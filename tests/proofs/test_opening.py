"""Openings as values and as bytes: what is counted, what a share is, and that only whole and honest bytes are read."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_edge.errors import OpeningError, OpeningSpent
from nexus_edge.proofs import Opening, _native
from nexus_edge.proofs.opening import FORMAT, commitment_of
from nexus_edge.proofs.ports import TensorType
from nexus_edge.types import SecurityBits, TensorCommitment

SMALL = TensorType("int8", (1, 8, 8, 1), 0.5, -3)
ROWS = 4096
"""Of a commitment of the least size."""
BUDGET = 512
"""How many of them may ever be opened."""
PER_PROOF = 162


def opening(tensor: TensorType = SMALL, security: SecurityBits = 100, rows: tuple[int, ...] = ()) -> Opening:
    seed = _native.Seed.load(bytes(range(32)))
    return Opening.fresh(tensor, security, TensorCommitment(bytes(32)), seed, rows)


row_sets = st.sets(st.integers(0, ROWS - 1), max_size=120)


@given(st.lists(row_sets, max_size=4))
def test_distinct_rows_are_counted_once(proofs: list[set[int]]) -> None:
    one = opening()
    for rows in proofs:
        one = one.spent(rows)
    opened = set().union(*proofs)
    assert one.account.opened == len(opened)
    assert one.account.left == BUDGET - len(opened)
    assert {i for i in range(ROWS) if one.account.bitmap[i >> 3] >> (i & 7) & 1} == opened


def test_the_allowance_is_kept_to_the_row() -> None:
    one = opening().spent(range(BUDGET - 1))
    assert one.spent([5, 2000]).account.left == 0
    assert one.spent([5, 2000]).spent([0, 2000]).account.left == 0
    with pytest.raises(OpeningSpent, match="the proof opens 2 more rows of the commitment, 1 may still be opened"):
        one.spent([2000, ROWS - 1])


@pytest.mark.parametrize("row", [ROWS, -8 * ROWS])
def test_a_row_that_is_not_there(row: int) -> None:
    with pytest.raises(IndexError):
        opening().spent([row])


@given(row_sets, st.integers(0, 9))
def test_a_share_is_taken_off(rows: set[int], proofs: int) -> None:
    whole = opening().spent(rows)
    fits = proofs * PER_PROOF <= whole.account.left
    try:
        kept, given = whole.split(proofs)
    except OpeningSpent:
        assert not fits
        return
    assert fits
    assert kept.account.allowance + given.account.allowance == whole.account.allowance
    assert (kept.account.opened, given.account.opened) == (len(rows), 0)
    assert given.account.proofs_left == proofs
    assert given.commitment == whole.commitment
    assert given.seed.expose() == whole.seed.expose()


def test_no_negative_share() -> None:
    with pytest.raises(OpeningSpent):
        opening().split(-1)


def test_no_hopeless_proof_is_begun() -> None:
    opening().spent(range(BUDGET - 148)).account.check_room()
    opening().split(1)[1].account.check_room()
    for spent in (opening().spent(range(BUDGET)), opening().spent(range(BUDGET - 60)), opening().split(0)[1]):
        with pytest.raises(OpeningSpent, match="too few for a proof"):
            spent.account.check_room()


@pytest.mark.parametrize(("security", "per_proof", "proofs"), [(100, PER_PROOF, 3), (128, 210, 2)])
def test_the_least_size(security: SecurityBits, per_proof: int, proofs: int) -> None:
    one = opening(security=security)
    assert (one.account.allowance, one.account.per_proof, one.account.proofs_left) == (BUDGET, per_proof, proofs)
    assert 8 * len(one.account.bitmap) == ROWS


def test_larger_tensors_have_larger_budgets() -> None:
    large = opening(TensorType("uint8", (1, 224, 224, 3), 0.5, 0))
    assert large.account.allowance == 16 * BUDGET
    assert 8 * len(large.account.bitmap) == 16 * ROWS


tensors = st.builds(
    TensorType,
    st.sampled_from(["int8", "uint8"]),
    st.lists(st.integers(1, 12), min_size=1, max_size=6).map(tuple),
    st.none() | st.floats(width=32, min_value=2**-100, max_value=2**100),
    st.integers(-(2**31), 2**31 - 1),
)


@given(tensors, st.sampled_from([100, 128]), row_sets, st.integers(0, 2))
def test_an_opening_survives_its_bytes(tensor: TensorType, security: SecurityBits, rows: set[int], proofs: int) -> None:
    kept, given = opening(tensor, security).split(proofs)
    for one in (kept, given, opening(tensor, security, tuple(rows))):
        loaded = Opening.from_bytes(one.to_bytes())
        assert loaded == one
        assert loaded.account.bitmap == one.account.bitmap
        assert loaded.to_bytes() == one.to_bytes()


def test_every_damage_is_noticed() -> None:
    data = opening(rows=(1, 2, 3)).to_bytes()
    chance = random.Random(7)  # the same places on every run
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << chance.randrange(8)
        with pytest.raises(OpeningError):
            Opening.from_bytes(bytes(damaged))
    for length in range(0, len(data), 13):
        with pytest.raises(OpeningError):
            Opening.from_bytes(data[:length])
    with pytest.raises(OpeningError):
        Opening.from_bytes(data + b"\0")


@pytest.mark.parametrize(
    ("section", "content"),
    [
        (0, b""),
        (0, b"\x64\0\0\0\1\0\1" + (2**31).to_bytes(4, "little") + b"\0" * 9),
        (0, b"\x64\0\0\0\1\0\2" + b"\xff\xff\0\0" * 2 + b"\0" * 9),
        (0, b"\x64\0\0\0\0\0\1" + b"\1\0\0\0" + b"\0" * 9),  # plain mode
        (0, b"\x50\0\0\0\1\0\1" + b"\1\0\0\0" + b"\0" * 9),  # 80 bits
        (0, b"\x64\0\0\0\1\2\1" + b"\1\0\0\0" + b"\0" * 9),  # a dtype
        (0, b"\x64\0\0\0\1\0\1" + b"\0\0\0\0" + b"\0" * 9),  # an empty tensor
        (0, b"\x64\0\0\0\1\0\1" + b"\1\0\0\0" + b"\2" + b"\0" * 8),  # neither with nor without a scale
        (0, b"\x64\0\0\0\1\0\1" + b"\1\0\0\0" + b"\0\0\0\x80\x3f" + b"\0" * 4),  # a scale of a tensor without one
        (0, b"\x64\0\0\0\1\0\1" + b"\1\0\0\0" + b"\1\0\0\xc0\x7f" + b"\0" * 4),  # not a number
        (1, bytes(31)),
        (2, bytes(31)),
        (3, bytes(8)),
        (3, BUDGET.to_bytes(8, "little") + bytes(ROWS // 8 + 1)),
        (3, (BUDGET + 1).to_bytes(8, "little") + bytes(ROWS // 8)),  # more than the budget
        (3, (2**64 - 1).to_bytes(8, "little") + bytes(ROWS // 8)),
        (3, (3).to_bytes(8, "little") + b"\x0f" + bytes(ROWS // 8 - 1)),  # more opened than allowed
    ],
)
def test_what_no_opening_says(section: int, content: bytes) -> None:
    """The checksum is right: the content itself is refused."""
    parts = list(FORMAT.decode(opening().to_bytes())[:4])
    parts[section] = content
    with pytest.raises(OpeningError):
        Opening.from_bytes(FORMAT.encode(*parts))


def test_the_seed_is_never_shown() -> None:
    one = opening()
    secret = one.seed.expose()
    texts = (repr(one), str(one), repr(one.seed), str(one.seed), str(one.describe()), f"{one}")
    assert not any(secret.hex() in text or repr(secret)[2:-1] in text for text in texts)


def test_seeds_are_fresh_and_have_32_bytes() -> None:
    assert len({_native.Seed.fresh().expose() for _ in range(100)}) == 100
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(_native.InputError):
            _native.Seed.load(wrong)


def test_a_commitment_binds_everything() -> None:
    values = np.arange(64, dtype=np.int8).reshape(SMALL.dims)
    seed, other_seed = _native.Seed.load(bytes(32)), _native.Seed.load(bytes(31) + b"\1")
    commitments = [
        commitment_of(SMALL, values, 100, seed),
        commitment_of(SMALL, values, 100, other_seed),
        commitment_of(SMALL, values, 100, None),
        commitment_of(SMALL, values, 128, seed),
        commitment_of(SMALL, values ^ 1, 100, seed),
        commitment_of(SMALL._replace(scale=0.25), values, 100, seed),
        commitment_of(SMALL._replace(scale=None), values, 100, seed),
        commitment_of(SMALL._replace(zero_point=3), values, 100, seed),
        commitment_of(SMALL._replace(dtype="uint8"), values.view(np.uint8), 100, seed),
        commitment_of(SMALL._replace(dims=(8, 8)), values.reshape(8, 8), 100, seed),
    ]
    assert len(set(commitments)) == len(commitments)
    assert commitment_of(SMALL, values, 100, _native.Seed.load(bytes(32))) == commitments[0]


@pytest.mark.parametrize("dims", [(), (0,), (1, 0, 3), (1,) * 7, (2**16, 2**16)])
def test_dimensions_that_no_tensor_has(dims: tuple[int, ...]) -> None:
    with pytest.raises(_native.InputError, match="no tensor has dimensions"):
        _native.tensor_rows(("int8", dims, None, 0), 100)


def test_seeds_belong_to_hiding_commitments() -> None:
    values = np.zeros(SMALL.dims, np.int8)
    for mode, seed in (("zk", None), ("plain", _native.Seed.fresh())):
        with pytest.raises(_native.InputError, match="seed"):
            _native.commit_tensor(SMALL, values, 100, mode, seed)
