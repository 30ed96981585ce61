"""Private models on the command line: every command in a process of its own, with files between them."""

import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nexus_edge.cli import ExitStatus
from nexus_edge.data import demo_digits, demo_model
from nexus_edge.proofs import ModelSecretFile, Proof, VerifyingKey, _native
from tests.proofs.importers.test_private import with_other_weights
from tests.proofs.test_secret import BUDGET, PER_PROOF

SEED = bytes(range(0xA0, 0xC0))
"""A seed that can be recognised in whatever is printed."""


@dataclass(frozen=True)
class Place:
    """A folder, and what its commands printed."""

    path: Path
    state: Path
    printed: list[bytes]

    def __call__(self, *words: str, status: int = 0) -> dict[str, Any]:
        """Run a command with `--json` in a process of its own; it must end with that status."""
        done = self.run(*words, "--json")
        assert done.returncode == status, done.stderr.decode()
        (line,) = done.stdout.splitlines()
        data: dict[str, Any] = json.loads(line)
        return data

    def run(self, *words: str) -> "subprocess.CompletedProcess[bytes]":
        env = {**os.environ, "XDG_STATE_HOME": str(self.state), "NEXUS_EDGE_DEBUG": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "nexus_edge", *words], cwd=self.path, env=env, capture_output=True, check=False, timeout=240
        )
        self.printed.extend((done.stdout, done.stderr))
        return done

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def secret(self, name: str = "model.secret") -> ModelSecretFile:
        return ModelSecretFile(self.path / name)

    def elsewhere(self, name: str) -> "Place":
        """The same folder for someone who has verified nothing yet."""
        return replace(self, state=self.path / name)


def owner(path: Path, data: bytes) -> Place:
    """The owner of a private model, who has committed and registered it."""
    path.mkdir()
    place = Place(path, path / "state", [])
    (path / "digits.tflite").write_bytes(data)
    np.save(path / "x.npy", demo_digits()[0][0])
    place("model", "commit", "digits.tflite", "--private", "--key", "vk", "--secret", "model.secret")
    place("model", "register", "digits.tflite", "--key", "vk", "--secret", "model.secret", "--out", "registration")
    return place


PROVE = ("prove", "--model", "digits.tflite", "--input", "x.npy")
VERIFY = ("verify", "--key", "vk", "--proof", "p")
LINK = ("model", "link", "digits.tflite", "--key", "vk", "--secret", "model.secret")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = owner(tmp_path_factory.mktemp("private") / "one", demo_model())
    place(*PROVE, "--secret", "model.secret", "--output", "y.npy", "--proof", "p")
    yield place
    # Whatever was printed by all tests together, secrets were not.
    seeds = [place.secret(path.name).read().seed.expose() for path in place.path.glob("*.secret")]
    assert len(seeds) >= 2
    check_secrecy(place, seeds)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return owner(tmp_path_factory.mktemp("private") / "other", with_other_weights(demo_model(), 1))


def check_secrecy(place: Place, seeds: list[bytes]) -> None:
    everything = b"".join(place.printed)
    for path in place.path.rglob("*"):
        if path.is_file() and not path.name.endswith(".secret"):
            everything += path.read_bytes()
    assert place.secret().read().digest.hex().encode() in everything
    for seed in seeds:
        for shown in (seed, seed.hex().encode(), repr(seed)[2:-1].encode(), json.dumps(list(seed)).encode()):
            assert shown not in everything


def test_the_whole_way(place: Place) -> None:
    """Register, prove, verify; link, prove, verify: the files that each needs, and nothing else."""
    stranger = place.elsewhere("stranger")
    invalid = stranger(*VERIFY, status=ExitStatus.REJECTED)
    assert (invalid["verified"], invalid["reason"]) == (False, "unregistered")
    assert invalid["error"]["what"] == "the proof is invalid"
    assert "verify-registration" in invalid["error"]["hint"]
    given = stranger(*VERIFY, "--registration", "registration", "--output", "y.npy", "--input", "x.npy")
    assert (given["verified"], given["private"]) == (True, True)
    assert stranger(*VERIFY, status=ExitStatus.REJECTED)["reason"] == "unregistered", "what was given once is not on record"
    assert not stranger.state.exists()
    recorded = stranger("model", "verify-registration", "--key", "vk", "--registration", "registration")
    assert recorded["verified"] is True
    assert [Path(path).is_file() for path in recorded["records"]] == [True]
    assert stranger(*VERIFY)["verified"] is True
    assert place.elsewhere("third")(*VERIFY, status=ExitStatus.REJECTED)["reason"] == "unregistered"
    assert place.elsewhere("third")(*VERIFY, "--state", str(stranger.state / "nexus-edge"))["verified"] is True

    made = place(*LINK, "--new-key", "vk2", "--new-secret", "two.secret", "--out", "link")
    assert made["fresh"][0]["secret"]["digest"] == made["digest"] == recorded["digest"]
    proved = place(*PROVE, "--secret", "two.secret", "--proof", "p2")
    assert proved["digest"] == recorded["digest"]
    under_new = ("verify", "--key", "vk2", "--proof", "p2")
    unlinked = stranger(*under_new, status=ExitStatus.REJECTED)
    assert (unlinked["reason"], "verify-link" in unlinked["error"]["hint"]) == ("unlinked", True)
    assert stranger(*under_new, "--link", "link")["verified"] is True
    nobody = place.elsewhere("nobody")
    assert nobody(*under_new, "--link", "link", status=ExitStatus.REJECTED)["reason"] == "unregistered"
    assert nobody(*under_new, "--link", "link", "--registration", "registration")["verified"] is True
    assert len(stranger("model", "verify-link", "--key", "vk2", "--link", "link")["records"]) == 1
    assert stranger(*under_new)["verified"] is True
    # A proof under the fresh commitment is none under the registered one.
    assert stranger("verify", "--key", "vk", "--proof", "p2", status=ExitStatus.REJECTED)["verified"] is False


def test_the_program_says_nothing_about_the_weights(place: Place, other: Place) -> None:
    keys = [VerifyingKey.from_bytes(one.read("vk")) for one in (place, other)]
    roots = [key.commitment for key in keys]
    assert None not in roots
    assert roots[0] != roots[1]
    without = [one.read("vk").replace(root or b"", b"") for one, root in zip((place, other), roots, strict=True)]
    assert without[0] == without[1]
    assert len(without[0]) == len(place.read("vk")) - 32
    proofs = [Proof.from_bytes(one.read(name)) for one, name in ((place, "p"),)]
    assert place.read("registration")[:8] == b"NXEREGIS"
    assert len(other.read("registration")) > 0
    assert proofs[0].statement.digest == keys[0].digest != keys[1].digest


def test_evidence_of_another_model(place: Place, other: Place) -> None:
    stranger = place.elsewhere("deceived")
    foreign = str(other.path / "registration")
    assert stranger(*VERIFY, "--registration", foreign, status=ExitStatus.REJECTED)["reason"] == "statement"
    # A header that claims this model does not help.
    forged = place.path / "forged"
    digest, mine = (VerifyingKey.from_bytes(one.read("vk")).digest for one in (other, place))
    forged.write_bytes(other.read("registration").replace(digest, mine))
    for words in ((*VERIFY, "--registration", "forged"), ("model", "verify-registration", "--key", "vk", "--registration", "forged")):
        refused = stranger(*words, status=ExitStatus.REJECTED)
        assert refused["verified"] is False
        assert refused["reason"] not in (None, "unregistered")
    public = owner_key(place)
    assert stranger("model", "verify-registration", "--key", public, "--registration", "registration", status=5)["reason"] == "statement"
    assert not stranger.state.exists()
    assert stranger(*VERIFY, status=ExitStatus.REJECTED)["reason"] == "unregistered"


def owner_key(place: Place) -> str:
    place("model", "commit", "digits.tflite", "--key", "public.vk")
    return "public.vk"


@pytest.mark.parametrize("content", [b"", b"{}\n", b'{"verified": "registration"}\n', "another protocol"])
def test_a_record_that_says_anything_else_counts_for_nothing(place: Place, tmp_path: Path, content: bytes | str) -> None:
    verifier = replace(place, state=tmp_path)
    (record,) = verifier("model", "verify-registration", "--key", "vk", "--registration", "registration")["records"]
    path = Path(record)
    assert verifier(*VERIFY)["verified"] is True
    path.write_bytes(path.read_bytes().replace(b"proof v", b"proof u") if isinstance(content, str) else content)
    assert verifier(*VERIFY, status=ExitStatus.REJECTED)["reason"] == "unregistered"


def test_secrets_are_for_their_owner_alone(place: Place) -> None:
    assert stat.S_IMODE((place.path / "model.secret").stat().st_mode) == 0o600
    assert not (place.path / "model.secret").read_bytes().startswith(place.read("vk")[:8])


def test_a_recognisable_seed_is_nowhere(place: Place, tmp_path: Path) -> None:
    """The same flow with a seed of known bytes, on the lines for people too."""
    mine = Place(tmp_path, tmp_path / "state", [])
    for name in ("digits.tflite", "x.npy"):
        (tmp_path / name).write_bytes(place.read(name))
    known = place.secret().read()
    native = _native.Model.load(*_program(place))
    key = native.commit(security=100, seed=_native.Seed.load(SEED))
    sizes = key.verifying_key.model_rows()
    assert sizes is not None
    root = type(known.commitment)(key.verifying_key.commitment or b"")
    planted = replace(known, digest=type(known.digest)(key.verifying_key.digest), registered=root, commitment=root)
    planted = replace(planted, seed=_native.Seed.load(SEED))
    assert SEED.hex() not in repr(planted)
    mine.secret().file.write(planted.to_bytes(), over=False)
    assert SEED in mine.read("model.secret")
    (tmp_path / "vk").write_bytes(key.verifying_key.to_bytes())
    for words in (
        ("model", "register", "digits.tflite", "--key", "vk", "--secret", "model.secret", "--out", "r"),
        (*LINK, "--new-key", "vk2", "--new-secret", "two.secret", "--out", "link"),
        (*PROVE, "--secret", "model.secret", "--proof", "p"),
        (*VERIFY, "--registration", "r"),
        ("model", "verify-link", "--key", "vk2", "--link", "link"),
    ):
        assert mine.run(*words, *([] if words[0] == "verify" else ["--json"])).returncode == 0
    # Refusals too: of a damaged secret, and of one that belongs to another model.
    (tmp_path / "damaged.secret").write_bytes(mine.read("model.secret")[:-1])
    (tmp_path / "damaged.secret").chmod(0o600)
    assert mine.run(*PROVE, "--secret", "damaged.secret", "--proof", "p").returncode == ExitStatus.OPENING
    (tmp_path / "digits.tflite").write_bytes(with_other_weights(demo_model(), 2))
    assert mine.run(*PROVE, "--secret", "model.secret", "--proof", "p").returncode == ExitStatus.OPENING
    check_secrecy(mine, [SEED])


def _program(place: Place) -> tuple[bytes, bytes]:
    from nexus_edge.proofs import Model
    from nexus_edge.types import PrivateForm

    model = Model.from_tflite(place.read("digits.tflite"), "digits", private=PrivateForm())
    return model.native.program_bytes, model.native.weights_bytes()


def test_nothing_is_left_but_one_link(tmp_path: Path) -> None:
    mine = owner(tmp_path / "mine", demo_model())
    secret = mine.secret()
    commitment = secret.read().commitment
    # Other proofs have opened so much that one more proof would leave too little for a link.
    account = secret.read().account
    rows = [row for row in range(8 * len(account.bitmap)) if not account.bitmap[row >> 3] >> (row & 7) & 1]
    secret.spend(commitment, rows[: account.left - PER_PROOF - 20])
    assert secret.read().proofs_left == 0
    left = secret.read().account.left
    for words in (
        (*PROVE, "--secret", "model.secret", "--proof", "p"),
        ("model", "register", "digits.tflite", "--key", "vk", "--secret", "model.secret", "--out", "again"),
    ):
        refused = mine(*words, status=ExitStatus.OPENING)
        assert refused["error"]["kind"] == "opening"
        assert "model link" in refused["error"]["hint"]
    assert not {"p", "p.opening", "again"} & {path.name for path in mine.path.iterdir()}
    assert secret.read().account.left == left
    pairs = [word for n in (2, 3) for word in ("--new-key", f"vk{n}", "--new-secret", f"{n}.secret")]
    mine(*LINK, *pairs, "--out", "link")
    assert 0 <= secret.read().account.left < left
    assert all(BUDGET - PER_PROOF <= mine.secret(f"{n}.secret").read().account.left < BUDGET for n in (2, 3))
    again = mine(*LINK, "--new-key", "vk4", "--new-secret", "4.secret", "--out", "link2", status=ExitStatus.OPENING)
    assert "anew" in again["error"]["hint"]
    assert not {"vk4", "4.secret", "link2"} & {path.name for path in mine.path.iterdir()}
    mine(*PROVE, "--secret", "3.secret", "--proof", "p3")
    evidence = ("--registration", "registration", "--link", "link")
    assert mine("verify", "--key", "vk3", "--proof", "p3", *evidence)["verified"] is True
    assert mine("verify", "--key", "vk2", "--proof", "p3", *evidence, status=ExitStatus.REJECTED)["verified"] is False


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("model", "commit", "digits.tflite", "--private", "--key", "k"), ExitStatus.USAGE),
        (("model", "commit", "digits.tflite", "--key", "k", "--secret", "s"), ExitStatus.USAGE),
        (("model", "commit", "digits.tflite", "--key", "k", "--bound", "14"), ExitStatus.USAGE),
        (("model", "commit", "digits.tflite", "--private", "--key", "k", "--secret", "k"), ExitStatus.USAGE),
        (("model", "commit", "digits.tflite", "--private", "--key", "k", "--secret", "model.secret"), ExitStatus.FILE),
        (("model", "commit", "digits.tflite", "--private", "--key", "k", "--secret", "s", "--mode", "plain"), ExitStatus.USAGE),
        (("model", "commit", "digits.tflite", "--private", "--key", "k", "--secret", "s", "--weights", "inside"), ExitStatus.USAGE),
        (("model", "commit", "digits.tflite", "--private", "--key", "k", "--secret", "s", "--bound", "8"), ExitStatus.MODEL),
        ((*PROVE, "--proof", "n", "--secret", "model.secret", "--mode", "plain"), ExitStatus.USAGE),
        ((*PROVE, "--proof", "n", "--secret", "model.secret", "--security", "128"), ExitStatus.USAGE),
        ((*PROVE, "--proof", "model.secret", "--secret", "model.secret"), ExitStatus.USAGE),
        ((*PROVE, "--proof", "n", "--secret", "nothing"), ExitStatus.OPENING),
        ((*LINK, "--new-key", "k", "--new-secret", "model.secret", "--out", "l"), ExitStatus.USAGE),
        ((*LINK, "--new-key", "k", "--new-secret", "s", "--new-secret", "t", "--out", "l"), ExitStatus.USAGE),
        ((*LINK, "--new-key", "k", "--new-secret", "s", "--out", "nowhere/l"), ExitStatus.FILE),
        ((*PROVE, "--proof", "nowhere/p", "--secret", "model.secret"), ExitStatus.FILE),
    ],
)
def test_what_makes_no_sense(place: Place, words: tuple[str, ...], status: int) -> None:
    before = {path: path.read_bytes() for path in place.path.iterdir() if path.is_file()}
    place(*words, status=status)
    assert {path: path.read_bytes() for path in place.path.iterdir() if path.is_file()} == before


def test_owners_choose_their_bounds(place: Place, tmp_path: Path) -> None:
    mine = Place(tmp_path, tmp_path / "state", [])
    (tmp_path / "digits.tflite").write_bytes(place.read("digits.tflite"))
    commit = ("model", "commit", "digits.tflite", "--private", "--key")
    layers = len(mine(*commit, "a", "--secret", "a.secret", "--bound", "15")["secret"]["log_bounds"])
    assert layers > 1
    bounds = [str(14 + n % 2) for n in range(layers)]
    words = [word for bound in bounds for word in ("--bound", bound)]
    assert mine(*commit, "b", "--secret", "b.secret", *words)["secret"]["log_bounds"] == [int(bound) for bound in bounds]
    # Imported ahead, and renamed, it is still the same model.
    assert mine("model", "import", "digits.tflite", "--private", *words, "--output", "m.nxm")["log_bounds"] == [
        int(bound) for bound in bounds
    ]
    np.save(tmp_path / "x.npy", demo_digits()[0][0])
    proved = mine("prove", "--model", "m.nxm", "--secret", "b.secret", "--input", "x.npy", "--proof", "p")
    assert proved["secret"]["rows_opened"] > 0
    fixed = mine("model", "commit", "m.nxm", "--private", "--key", "c", "--secret", "c.secret", "--bound", "16", status=ExitStatus.MODEL)
    assert "bounds are fixed" in fixed["error"]["what"]
    mine("prove", "--model", "m.nxm", "--input", "x.npy", "--proof", "p3", status=ExitStatus.USAGE)
    mine("prove", "--model", "m.nxm", "--secret", "a.secret", "--input", "x.npy", "--proof", "p3", status=ExitStatus.MODEL)
    mine("model", "import", "digits.tflite", "--output", "public.nxm")
    mine(*commit[:2], "public.nxm", *commit[3:], "c", "--secret", "c.secret", status=ExitStatus.MODEL)
    assert not {"c", "c.secret", "p3"} & {path.name for path in tmp_path.iterdir()}
    (tmp_path / "digits.tflite").rename(tmp_path / "renamed.tflite")
    mine("model", "register", "renamed.tflite", "--key", "b", "--secret", "b.secret", "--out", "r")
    assert mine("model", "verify-registration", "--key", "b", "--registration", "r")["verified"] is True
    assert mine("model", "verify-registration", "--key", "a", "--registration", "r", status=5)["verified"] is False


def test_help_names_everything(place: Place) -> None:
    text = place.run("model", "--help").stdout.decode()
    for command in ("commit", "register", "link", "verify-registration", "verify-link"):
        assert re.search(rf"\b{command}\b", text)
