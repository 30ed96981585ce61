"""Two models in a row: the committed output of the first is the committed input of the second, and nobody sees the value between."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nexus_edge.errors import OpeningError
from nexus_edge.proofs import (
    Model,
    OpeningFile,
    Proof,
    ProofRejected,
    Proved,
    ProvingKey,
    RejectReason,
    VerifyingKey,
    commit_model,
    commit_tensor,
    prove,
    verify,
)
from nexus_edge.types import ProofMode, TensorCommitment
from tests.support import models

START = np.arange(-6, 6, dtype=np.int8).reshape(1, 12)


@dataclass(frozen=True)
class Chain:
    keys: tuple[ProvingKey, ProvingKey]
    first: Proved
    second: Proved


def make_chain(mode: ProofMode = "zk") -> Chain:
    first_key, second_key = (commit_model(Model.from_tflite(models.chainable(seed)), mode=mode) for seed in (5, 6))
    first = prove(first_key, [START], commit_outputs=True)
    openings = first.output_openings if mode == "zk" else None
    second = prove(second_key, first.outputs, input_openings=openings)
    return Chain((first_key, second_key), first, second)


def verify_chain(keys: tuple[VerifyingKey, VerifyingKey], proofs: tuple[Proof, Proof]) -> None:
    """What one does who has two keys and two proofs, and nothing else."""
    for key, proof in zip(keys, proofs, strict=True):
        verify(key, proof)
    (middle,) = proofs[0].statement.outputs
    assert isinstance(middle, bytes)
    if [middle] != proofs[1].statement.inputs:
        raise ProofRejected(RejectReason.INPUT, "the second proof is about another input than the first one's output")


def public(chain: Chain) -> tuple[tuple[VerifyingKey, VerifyingKey], tuple[Proof, Proof]]:
    """What leaves the prover: bytes."""
    keys = tuple(VerifyingKey.from_bytes(key.verifying_key.to_bytes()) for key in chain.keys)
    proofs = tuple(Proof.from_bytes(proved.proof.to_bytes()) for proved in (chain.first, chain.second))
    return (keys[0], keys[1]), (proofs[0], proofs[1])


@pytest.mark.parametrize("mode", ["zk", "plain"])
def test_two_proofs_chain(mode: ProofMode) -> None:
    chain = make_chain(mode)
    keys, proofs = public(chain)
    verify_chain(keys, proofs)
    verify(keys[1], proofs[1], outputs=chain.second.outputs)
    assert not np.array_equal(chain.first.outputs[0], chain.second.outputs[0])


def test_the_value_between_is_not_to_be_found() -> None:
    chain = make_chain()
    (middle,) = chain.first.outputs
    _, proofs = public(chain)
    for proof in proofs:
        assert middle.tobytes() not in proof.to_bytes()
        assert not any(isinstance(tensor, np.ndarray) and np.array_equal(tensor, middle) for tensor in proof.statement.outputs)
    # Whoever guesses it cannot tell that he is right: his own commitment to it is another.
    guess = commit_tensor(chain.keys[1].verifying_key.inputs[0], middle).read()
    assert [guess.commitment] != proofs[1].statement.inputs
    with pytest.raises(OpeningError):
        verify(chain.keys[1].verifying_key, proofs[1], inputs=[middle])


def test_the_value_between_plain_proofs_is_recognised() -> None:
    """The control of the test above."""
    chain = make_chain("plain")
    verify(chain.keys[1].verifying_key, chain.second.proof, inputs=chain.first.outputs)


def test_both_proofs_are_counted() -> None:
    chain = make_chain()
    assert chain.second.input_openings == chain.first.output_openings
    (holder,) = chain.first.output_openings
    assert holder is not None
    assert 300 <= holder.read().account.opened <= 2 * 162


def test_another_value_between_breaks_the_chain() -> None:
    chain = make_chain()
    other = prove(chain.keys[1], [chain.first.outputs[0] ^ 1])
    again = prove(chain.keys[1], chain.first.outputs)  # the same value, another commitment
    keys, (first, _) = public(chain)
    for second in (other.proof, again.proof):
        with pytest.raises(ProofRejected, match="another input"):
            verify_chain(keys, (first, second))


def test_a_third_party_proves_the_second_step(tmp_path: Path) -> None:
    """Two provers: the second gets the value and a share of the opening, and can make as many proofs as he was given."""
    first_key, second_key = (commit_model(Model.from_tflite(models.chainable(seed))) for seed in (5, 6))
    first = prove(first_key, [START], commit_outputs=True)
    (held,) = first.output_openings
    assert held is not None
    mine = held.save(tmp_path / "mine")
    theirs = mine.share(1, tmp_path / "theirs")
    second = prove(second_key, first.outputs, input_openings=[OpeningFile(theirs.path)])
    (middle,) = first.proof.statement.outputs
    assert second.proof.statement.inputs == [TensorCommitment(bytes(middle))]
    verify_chain((first_key.verifying_key, second_key.verifying_key), (first.proof, second.proof))
    assert mine.read().account.allowance + theirs.read().account.allowance == 512
