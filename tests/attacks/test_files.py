"""Hostile files: every region of a real proof, statement and key changed, cut and extended, through the API and the command line.

Always `ProofRejected` with a typed reason, or exit status 5: never another exception, a traceback, or much memory.
"""

import json
import random
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from nexus_edge.cli import ExitStatus, main
from nexus_edge.data import demo_digits, demo_model
from nexus_edge.proofs import Model, Proof, ProofRejected, ProvingKey, RejectReason, Statement, VerifyingKey, commit_model, prove, verify
from nexus_edge.proofs.proof import FORMAT

T = TypeVar("T")
HEADER = 8 + 4 + 2 * 8
"""Magic, version, two lengths."""
PLACES = 250
"""Bytes of a long file that are changed."""


@pytest.fixture(scope="module")
def key() -> ProvingKey:
    return commit_model(Model.from_tflite(demo_model(), "digits"))


@pytest.fixture(scope="module")
def proof(key: ProvingKey) -> Proof:
    return prove(key, [demo_digits()[0][0]]).proof


@pytest.fixture(scope="module")
def proof_file(proof: Proof) -> bytes:
    return proof.to_bytes()


def flips(data: bytes, places: int = PLACES) -> Iterator[bytes]:
    """One byte changed, all along the file: all bytes of the first hundred, then evenly spread ones."""
    chance = random.Random(61)  # the same places on every run
    stride = max(1, len(data) // places)
    for start in [*range(min(100, len(data))), *range(100, len(data), stride)]:
        place = min(len(data) - 1, start + (chance.randrange(stride) if start >= 100 else 0))
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        yield bytes(changed)


def cuts(data: bytes) -> Iterator[bytes]:
    """Prefixes and suffixes, pieces removed and repeated, bytes behind the end."""
    chance = random.Random(62)  # the same places on every run
    yield b""
    for length in [1, 7, 8, 11, 12, 27, 28, 29, len(data) - 1]:
        yield data[:length]
        yield data[length:]
    for _ in range(40):
        start, end = sorted((chance.randrange(len(data)), chance.randrange(1, len(data))))
        yield data[:start] + data[end + 1 :]
        yield data[: end + 1] + data[start:]
    yield data + b"\0"
    yield data + data


def read(parse: Callable[[bytes], T], data: bytes) -> tuple[T | None, RejectReason | None]:
    """What the bytes decode to, or why they do not."""
    try:
        return parse(data), None
    except ProofRejected as refused:
        return None, refused.reason


def unnamed(key: VerifyingKey) -> bytes:
    """A key's bytes without the name of its model, which is for people: no digest and no proof has it."""
    return key.to_bytes().replace(key.describe()["name"].encode(), b"", 1)


def refusal(key: VerifyingKey, data: bytes) -> RejectReason:
    with pytest.raises(ProofRejected) as caught:
        verify(key, Proof.from_bytes(data))
    return caught.value.reason


def test_every_changed_byte_of_a_proof_file_is_refused(key: ProvingKey, proof_file: bytes) -> None:
    reasons = {refusal(key.verifying_key, changed) for changed in flips(proof_file)}
    assert {RejectReason.MALFORMED, RejectReason.STATEMENT, RejectReason.EQUATION, RejectReason.MERKLE} <= reasons


def test_a_cut_or_extended_proof_file_is_refused(key: ProvingKey, proof_file: bytes) -> None:
    reasons = {refusal(key.verifying_key, changed) for changed in cuts(proof_file)}
    assert reasons <= {RejectReason.MALFORMED, RejectReason.TRUNCATED, RejectReason.TRAILING}
    assert reasons >= {RejectReason.TRUNCATED, RejectReason.TRAILING}


def test_every_changed_byte_of_a_body_is_refused(key: ProvingKey, proof: Proof) -> None:
    """The container is as it should be: the verifier alone decides. Another message leads to other rows, and these may need more bytes."""
    reasons = {refusal(key.verifying_key, Proof(proof.statement, changed).to_bytes()) for changed in flips(proof.body)}
    of_content = {RejectReason.STATEMENT, RejectReason.EQUATION, RejectReason.MERKLE, RejectReason.ROW, RejectReason.NOT_CANONICAL}
    assert reasons <= of_content | {RejectReason.TRUNCATED}
    for changed in cuts(proof.body):
        assert refusal(key.verifying_key, Proof(proof.statement, changed).to_bytes()) is not RejectReason.MALFORMED


def test_every_changed_byte_of_a_statement_is_refused(key: ProvingKey, proof: Proof) -> None:
    data = proof.statement.to_bytes()
    for changed in [*flips(data), *cuts(data)]:
        assert changed != data
        file = FORMAT.encode(changed, proof.body)
        assert refusal(key.verifying_key, file) in set(RejectReason)
        other, reason = read(Statement.from_bytes, changed)
        assert reason is RejectReason.MALFORMED if other is None else other.to_bytes() == changed


def test_every_changed_byte_of_a_key_gives_none_or_another_key(key: ProvingKey, proof: Proof) -> None:
    data, same = key.verifying_key.to_bytes(), unnamed(key.verifying_key)
    others = renamed = 0
    for changed in [*flips(data), *cuts(data)]:
        other, reason = read(VerifyingKey.from_bytes, changed)
        if other is None:
            assert reason is RejectReason.MALFORMED
            continue
        assert other.to_bytes() == changed
        if unnamed(other) == same:
            renamed += 1
            assert other.digest == key.verifying_key.digest
            verify(other, proof)
            continue
        others += 1
        assert other.digest != key.verifying_key.digest
        assert refusal(other, proof.to_bytes()) is RejectReason.STATEMENT
    assert others > 0
    assert renamed > 0


@pytest.mark.parametrize("lengths", [(256 << 20, 64 << 20), (2**64 - 1, 2**64 - 1), (1 << 63, 0), (0, (64 << 20) + 1)])
def test_declared_lengths_cost_nothing(key: ProvingKey, proof_file: bytes, lengths: tuple[int, int]) -> None:
    data = proof_file[:12] + struct.pack("<QQ", *lengths) + proof_file[HEADER:]
    tracemalloc.start()
    try:
        assert refusal(key.verifying_key, data) in {RejectReason.MALFORMED, RejectReason.TRUNCATED}
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


# The command line


@pytest.fixture
def files(tmp_path: Path, key: ProvingKey, proof_file: bytes) -> dict[str, Path]:
    made = {"key": tmp_path / "vk.bin", "proof": tmp_path / "p.bin"}
    made["key"].write_bytes(key.verifying_key.to_bytes())
    made["proof"].write_bytes(proof_file)
    return made


def words(files: dict[str, Path]) -> list[str]:
    return ["verify", "--key", str(files["key"]), "--proof", str(files["proof"]), "--json"]


@pytest.mark.parametrize("target", ["key", "proof"])
def test_the_command_line_refuses_every_changed_file(files: dict[str, Path], target: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(files)) == ExitStatus.OK
    capsys.readouterr()
    data = files[target].read_bytes()
    refused = 0
    for changed in [*flips(data, 60), *cuts(data)]:
        files[target].write_bytes(changed)
        status = main(words(files))
        captured = capsys.readouterr()
        (line,) = captured.out.splitlines()
        answer = json.loads(line)
        assert "Traceback" not in captured.err
        if target == "key" and answer["verified"]:
            assert status == ExitStatus.OK
            assert unnamed(VerifyingKey.from_bytes(changed)) == unnamed(VerifyingKey.from_bytes(data))
            continue
        refused += 1
        assert status == ExitStatus.REJECTED
        assert answer["verified"] is False
        assert answer["reason"] in list(RejectReason)
    assert refused > 100


def test_files_of_another_kind_are_refused(files: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    np.save(tmp_path / "array.npy", demo_digits()[0][0])
    contents = [
        demo_model(),
        files["key"].read_bytes(),
        files["proof"].read_bytes(),
        (tmp_path / "array.npy").read_bytes(),
        bytes(1000),
        b"",
    ]
    for target in files:
        for content in contents:
            if content == files[target].read_bytes():
                continue
            other.write_bytes(content)
            assert main(words(files | {target: other})) == ExitStatus.REJECTED
            assert json.loads(capsys.readouterr().out)["verified"] is False


def test_a_process_that_verifies_a_hostile_file_ends_with_its_status(files: dict[str, Path], proof_file: bytes) -> None:
    for changed in [proof_file[:100], proof_file[:-1], b"", proof_file + b"x", b"NXEPROOF" + bytes(100)]:
        files["proof"].write_bytes(changed)
        done = subprocess.run([sys.executable, "-m", "nexus_edge", *words(files)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == ExitStatus.REJECTED
        assert json.loads(done.stdout)["verified"] is False
        assert "Traceback" not in done.stderr
