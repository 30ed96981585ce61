"""What children do, done here: from a requester's array to an answer that it checks, and every way in which one of the two lies."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nexus_edge.data import demo_digits, demo_model
from nexus_edge.errors import (
    BadInput,
    Cancelled,
    MalformedModel,
    NexusEdgeError,
    OpeningError,
    OpeningSpent,
    ProofRejected,
    RejectReason,
    UnsupportedModel,
)
from nexus_edge.proofs import Model, Proof, VerifyingKey, commit_model, tasks
from nexus_edge.proofs.answers import verify_answer
from nexus_edge.proofs.parameters import ParameterSet
from nexus_edge.proofs.wired import CommittedInputs, commit_inputs, input_commitments, read_tensors
from nexus_edge.types import Context, Digest, ModelDigest, PrivateForm
from nexus_edge.wire.digests import statement_digest

KEEP = 256 << 20
LEASE = Context(b"\x11" * 32)
OTHER = b"\x22" * 32
SEED = b"\x33" * 32


def silent(_phase: str, _fraction: float) -> bool:
    return True


@dataclass(frozen=True)
class Prepared:
    """A model as a worker and a requester have it."""

    program: str
    params: str
    made: dict[str, Any]
    key: VerifyingKey

    @property
    def model(self) -> ModelDigest:
        return ModelDigest(self.made["digest"])


def prepared(place: Path, params: str = "zk-100", source: bytes | None = None) -> Prepared:
    source_file = place / "digits.tflite"
    source_file.write_bytes(demo_model() if source is None else source)
    program = str(place / f"program-{params}")
    made: dict[str, Any] = tasks.prepare(silent, source=str(source_file), target=program, params=params)
    return Prepared(program, params, made, VerifyingKey.from_bytes(made["key"]))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared(tmp_path_factory.mktemp("models"))


def image(number: int = 0) -> Any:
    return demo_digits()[number][0]


def order(digits: Prepared, inputs: CommittedInputs, /, **changes: Any) -> dict[str, Any]:
    asked = {
        "program": digits.program,
        "params": digits.params,
        "model": digits.model,
        "data": inputs.data,
        "seed": inputs.seed,
        "openings": 1,
        "expected": inputs.inc,
        "context": LEASE,
        "commit_output": False,
        "output_seed": b"",
        "keep": KEEP,
    }
    return {**asked, **changes}


def answered(digits: Prepared, inputs: CommittedInputs, /, **changes: Any) -> dict[str, Any]:
    return tasks.prove(silent, **order(digits, inputs, **changes))


def rejected(reason: RejectReason, *arguments: Any, **more: Any) -> None:
    with pytest.raises(ProofRejected) as caught:
        verify_answer(*arguments, **more)
    assert caught.value.reason is reason


@pytest.mark.parametrize("params", ["zk-100", "zk-128", "plain-100", "plain-128"])
def test_an_answer_is_the_models_and_is_accepted(tmp_path: Path, params: str) -> None:
    model = prepared(tmp_path, params)
    inputs = commit_inputs(model.key, [image()])
    made = answered(model, inputs)
    (expected,) = Model.from_tflite(demo_model()).run([image()])
    assert made["output"] == expected.tobytes()
    shown = verify_answer(model.key, model.model, params, LEASE, inputs.inc, made["output"], made["proof"])
    assert shown.statement.to_bytes() == made["statement"]
    assert len(inputs.seed) == (32 if params.startswith("zk") else 0)
    assert made["run_us"] >= 0
    assert made["prove_us"] > 1000
    phases = ["execute", "witness", "commit", "lookups", "contractions", "opening", "verify"]
    assert [name for name, _ in made["phases_us"]] == phases
    assert all(us >= 0 for _, us in made["phases_us"])
    assert 1000 < sum(us for _, us in made["phases_us"][1:-1]) <= made["prove_us"]


@pytest.mark.parametrize("params", ["zk-100", "plain-100"])
def test_a_committed_output_is_the_same_for_the_same_seed(tmp_path: Path, params: str) -> None:
    model = prepared(tmp_path, params)
    inputs = commit_inputs(model.key, [image()])
    first, second = (answered(model, inputs, commit_output=True, output_seed=SEED) for _ in range(2))
    other = answered(model, inputs, commit_output=True, output_seed=OTHER)
    assert first["output_commitment"] == second["output_commitment"]
    assert (first["output_commitment"] == other["output_commitment"]) == (params == "plain-100")
    assert first["output"] not in first["proof"]
    outc = Digest(first["output_commitment"])
    asked = (model.key, model.model, params, LEASE, inputs.inc)
    verify_answer(*asked, first["output"], first["proof"], outc=outc, output_seed=SEED)
    rejected(RejectReason.OUTPUT, *asked, changed(first["output"]), first["proof"], outc=outc, output_seed=SEED)
    rejected(RejectReason.OUTPUT, *asked, first["output"], first["proof"], outc=Digest(OTHER), output_seed=SEED)
    rejected(RejectReason.OUTPUT, *asked, first["output"], first["proof"])


def changed(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def test_a_hidden_output_cannot_be_compared_without_its_seed(digits: Prepared) -> None:
    inputs = commit_inputs(digits.key, [image()])
    made = answered(digits, inputs, commit_output=True, output_seed=SEED)
    asked = (digits.key, digits.model, "zk-100", LEASE, inputs.inc, made["output"], made["proof"])
    with pytest.raises(OpeningError):
        verify_answer(*asked, outc=made["output_commitment"])
    rejected(RejectReason.OUTPUT, *asked, outc=made["output_commitment"], output_seed=OTHER)
    with pytest.raises(OpeningError):
        answered(digits, inputs, commit_output=True, output_seed=b"short")


def test_an_answer_to_anything_else_is_rejected(digits: Prepared, tmp_path: Path) -> None:
    inputs, others = commit_inputs(digits.key, [image(0)]), commit_inputs(digits.key, [image(1)])
    same_again = commit_inputs(digits.key, [image(0)])
    made = answered(digits, inputs)
    output, proof = made["output"], made["proof"]
    key, model, inc = digits.key, digits.model, inputs.inc
    verify_answer(key, model, "zk-100", LEASE, inc, output, proof, statement=statement_digest(made["statement"]))
    rejected(RejectReason.CONTEXT, key, model, "zk-100", Context(OTHER), inc, output, proof)
    rejected(RejectReason.STATEMENT, key, ModelDigest(OTHER), "zk-100", LEASE, inc, output, proof)
    rejected(RejectReason.STATEMENT, key, model, "zk-128", LEASE, inc, output, proof)
    rejected(RejectReason.STATEMENT, key, model, "plain-100", LEASE, inc, output, proof)
    rejected(RejectReason.STATEMENT, key, model, "zk-100", LEASE, inc, output, proof, statement=Digest(OTHER))
    rejected(RejectReason.INPUT, key, model, "zk-100", LEASE, others.inc, output, proof)
    rejected(RejectReason.INPUT, key, model, "zk-100", LEASE, same_again.inc, output, proof)
    rejected(RejectReason.OUTPUT, key, model, "zk-100", LEASE, inc, changed(output), proof)
    rejected(RejectReason.OUTPUT, key, model, "zk-100", LEASE, inc, output[:-1], proof)
    rejected(RejectReason.OUTPUT, key, model, "zk-100", LEASE, inc, output, proof, outc=Digest(OTHER))
    rejected(RejectReason.TRUNCATED, key, model, "zk-100", LEASE, inc, output, proof[:-1])
    another = prepared(tmp_path, "zk-128")
    rejected(RejectReason.STATEMENT, another.key, another.model, "zk-128", LEASE, inc, output, proof)
    rejected(RejectReason.STATEMENT, another.key, model, "zk-128", LEASE, inc, output, proof)


def test_a_proof_of_another_statement_is_rejected(digits: Prepared) -> None:
    """The statement is what the requester wants to hear; the proof under it is of another lease."""
    inputs = commit_inputs(digits.key, [image()])
    wanted, stale = answered(digits, inputs), answered(digits, inputs, context=OTHER)
    forged = Proof(Proof.from_bytes(wanted["proof"]).statement, Proof.from_bytes(stale["proof"]).body)
    asked = (digits.key, digits.model, "zk-100", LEASE, inputs.inc, wanted["output"])
    with pytest.raises(ProofRejected):
        verify_answer(*asked, forged.to_bytes())
    with pytest.raises(ProofRejected):
        verify_answer(*asked, wanted["proof"][:-1] + bytes([wanted["proof"][-1] ^ 1]))


def test_an_input_that_is_not_the_one_committed_to_is_refused(digits: Prepared) -> None:
    inputs, others = commit_inputs(digits.key, [image(0)]), commit_inputs(digits.key, [image(1)])
    for changes in (
        {"data": others.data},
        {"seed": others.seed},
        {"expected": OTHER},
        {"data": inputs.data[:-1]},
        {"data": inputs.data + b"\0"},
        {"seed": b""},
        {"seed": inputs.seed * 2},
        {"openings": 4},
        {"openings": 2**40},
    ):
        with pytest.raises(BadInput):
            answered(digits, inputs, **changes)


def test_commitments_at_hand_spare_the_child_its_own_and_are_not_believed(digits: Prepared) -> None:
    inputs, others = commit_inputs(digits.key, [image(0)]), commit_inputs(digits.key, [image(1)])
    made = answered(digits, inputs, commitments=list(inputs.commitments))
    verify_answer(digits.key, digits.model, "zk-100", LEASE, inputs.inc, made["output"], made["proof"])
    with pytest.raises(BadInput):
        answered(digits, inputs, commitments=list(others.commitments))
    for changes in ({"data": others.data}, {"seed": others.seed}):
        with pytest.raises(NexusEdgeError):
            answered(digits, inputs, commitments=list(inputs.commitments), **changes)


def test_without_openings_there_is_no_proof(digits: Prepared) -> None:
    with pytest.raises(OpeningSpent):
        answered(digits, commit_inputs(digits.key, [image()]), openings=0)


def test_a_requester_hands_out_no_more_than_its_budget(digits: Prepared) -> None:
    inputs = commit_inputs(digits.key, [image()])
    assert inputs.proofs_left == 3
    assert inputs.hand_out(1) == 1
    assert inputs.proofs_left == 2
    with pytest.raises(OpeningSpent):
        inputs.hand_out(3)
    assert inputs.proofs_left == 2
    assert inputs.hand_out(2) == 2
    assert "seed" not in repr(inputs)


def test_commitments_are_of_the_integers_and_seeds(digits: Prepared) -> None:
    inputs = commit_inputs(digits.key, [image()])
    assert input_commitments(digits.key, inputs.data, inputs.seed) == inputs.commitments
    assert input_commitments(digits.key, changed(inputs.data), inputs.seed) != inputs.commitments
    with pytest.raises(BadInput):
        commit_inputs(digits.key, [image().astype(np.float32)])
    (back,) = read_tensors(digits.key.inputs, inputs.data, "input")
    assert np.array_equal(back, image())


def test_what_is_not_the_model_is_not_proved(digits: Prepared, tmp_path: Path) -> None:
    inputs = commit_inputs(digits.key, [image()])
    data = Path(digits.program).read_bytes()
    for damaged in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), b"", b"NXEMODEL"):
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(MalformedModel):
            answered(digits, inputs, program=str(tmp_path / "damaged"))
    with pytest.raises(MalformedModel):
        answered(digits, inputs, model=OTHER)
    with pytest.raises(BadInput, match="parameter set"):
        answered(digits, inputs, params="zk-80")


def test_private_and_broken_models_are_not_prepared(tmp_path: Path) -> None:
    private = Model.from_tflite(demo_model(), private=PrivateForm())
    with pytest.raises(UnsupportedModel):
        prepared(tmp_path, source=private.to_bytes())
    with pytest.raises(MalformedModel):
        prepared(tmp_path, source=b"nothing")
    with pytest.raises(BadInput):
        prepared(tmp_path, params="zk")


def test_preparing_says_what_a_requester_and_a_worker_need(digits: Prepared, tmp_path: Path) -> None:
    made = digits.made
    assert (made["input_bytes"], made["output_bytes"]) == (64, 10)
    assert made["semantics"] == "tflm"
    assert made["program_bytes"] == Path(digits.program).stat().st_size
    # The program, wherever it came from, is the same model.
    again = tasks.prepare(silent, source=digits.program, target=str(tmp_path / "copy"), params="zk-100")
    assert (again["digest"], again["key"]) == (made["digest"], made["key"])
    assert (tmp_path / "copy").read_bytes() == Path(digits.program).read_bytes()


def test_running_is_exact(digits: Prepared) -> None:
    (expected,) = Model.from_tflite(demo_model()).run([image(3)])
    made = tasks.run(silent, program=digits.program, params="zk-100", model=digits.model, data=image(3).tobytes())
    assert made["output"] == expected.tobytes()


@pytest.mark.parametrize("phase", ["load", "execute", "witness", "commit", "lookups", "opening", "verify"])
def test_a_task_stops_in_any_phase(digits: Prepared, phase: str) -> None:
    inputs = commit_inputs(digits.key, [image()])
    tasks._kept.clear()
    with pytest.raises(Cancelled):
        tasks.prove(lambda at, _: at != phase, **order(digits, inputs))


def test_models_are_kept_within_a_bound(digits: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(*arguments: Any) -> Any:
        made.append("commit")
        return commit_model(*arguments)

    monkeypatch.setattr(tasks, "commit_model", counted)
    tasks._kept.clear()
    inputs = commit_inputs(digits.key, [image()])

    def commits(keep: int) -> int:
        made.clear()
        for _ in range(2):
            answered(digits, inputs, keep=keep)
        return len(made)

    assert commits(keep=0) == 2
    assert commits(keep=KEEP) == 1
    assert commits(keep=KEEP) == 0


def test_parameter_sets_have_one_name_each() -> None:
    names = ["zk-100", "zk-128", "plain-100", "plain-128"]
    assert [str(ParameterSet.parse(name)) for name in names] == names
    for wrong in ("", "zk", "zk-099", "ZK-100", "zk-100 "):
        with pytest.raises(BadInput):
            ParameterSet.parse(wrong)


def phases(seen: Sequence[tuple[str, float]]) -> list[str]:
    return [phase for at, (phase, _) in enumerate(seen) if at == 0 or seen[at - 1][0] != phase]


def test_phases_come_in_order(digits: Prepared) -> None:
    seen: list[tuple[str, float]] = []
    tasks._kept.clear()

    def note(phase: str, fraction: float) -> bool:
        seen.append((phase, fraction))
        return True

    tasks.prove(note, **order(digits, commit_inputs(digits.key, [image()])))
    assert phases(seen)[:4] == ["load", "execute", "witness", "commit"]
    assert phases(seen)[-2:] == ["opening", "verify"]
