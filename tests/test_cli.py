"""The command line as outside scripts use it: files in, files out, one JSON object, distinct exit statuses, never a traceback."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nexus_edge.cli import ExitStatus, main
from nexus_edge.commands import models as models_commands
from nexus_edge.data import demo_digits, demo_model
from nexus_edge.errors import JobFailed
from tests.support import models

CONTEXT = "ab" * 32


@dataclass(frozen=True)
class Files:
    """What a user has after proving the first demo digit."""

    model: Path
    input: Path
    other_input: Path
    output: Path
    proof: Path
    key: Path
    proved: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    status: int
    data: dict[str, Any]
    narration: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with `--json`; its standard output must be exactly one object."""

    def run(*words: str | Path) -> Outcome:
        status = main([*map(str, words), "--json"])
        captured = capsys.readouterr()
        (line,) = captured.out.splitlines()
        return Outcome(status, json.loads(line), captured.err)

    return run


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    place = tmp_path_factory.mktemp("proved")
    (image, _), (other, _) = demo_digits()[:2]
    model = place / "digits.tflite"
    model.write_bytes(demo_model())
    np.save(place / "x.npy", image)
    np.save(place / "other.npy", other)
    made = Files(model, place / "x.npy", place / "other.npy", place / "y.npy", place / "p.bin", place / "vk.bin", {})
    prove = [
        "prove",
        "--model",
        model,
        "--input",
        made.input,
        "--output",
        made.output,
        "--proof",
        made.proof,
        "--context",
        CONTEXT,
        "--json",
    ]
    done = subprocess.run([sys.executable, "-m", "nexus_edge", *map(str, prove)], capture_output=True, check=True, timeout=120)
    made.proved.update(json.loads(done.stdout))
    assert main(["model", "commit", str(model), "--key", str(made.key)]) == 0
    return made


def save_npz(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    np.savez(path, allow_pickle=False, **arrays)


def verify(files: Files, **replaced: Path | str) -> list[str]:
    words = {"key": files.key, "proof": files.proof} | replaced
    return ["verify", *(word for name, value in words.items() for word in (f"--{name}", str(value)))]


# What a session looks like


def test_the_model_is_inspected(run: Run, files: Files) -> None:
    seen = run("model", "inspect", files.model)
    assert seen.status == 0
    assert seen.data["digest"] == files.proved["digest"]
    (port,) = seen.data["inputs"]
    expected = {"name": "image", "dtype": "int8", "shape": [1, 8, 8, 1], "scale": pytest.approx(1 / 255), "zero_point": -128}
    assert {name: port[name] for name in expected} == expected
    assert seen.data["outputs"][0]["shape"] == [1, 10]
    assert [operator["kind"] for operator in seen.data["operators"]] == ["convolution", "convolution", "convolution", "softmax"]
    assert set(seen.data["forecast"]) == {"prove_ms", "memory_bytes", "proof_bytes"}
    assert seen.data["soundness"]["bits"] >= 100


def test_the_model_is_inspected_by_a_person(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "inspect", str(files.model)]) == 0
    text = capsys.readouterr().out
    assert "input      image  int8 [1, 8, 8, 1]" in text
    assert files.proved["digest"] in text


def test_inference_gives_the_proven_output(run: Run, files: Files, tmp_path: Path) -> None:
    done = run("infer", "--model", files.model, "--input", files.input, "--output", tmp_path / "y.npy")
    assert done.status == 0
    assert done.data["infer_ms"] > 0
    assert np.array_equal(np.load(tmp_path / "y.npy"), np.load(files.output))


def test_the_figures_of_a_proof(files: Files) -> None:
    proved = files.proved
    assert proved["security_bits"] >= 100
    assert proved["proof_bytes"] == files.proof.stat().st_size
    assert 0 < sum(proved["phases_ms"].values()) <= proved["prove_ms"]
    assert proved["cells"] > 0
    assert proved["lookups"] > 0
    assert proved["peak_rss_bytes"] > 10_000_000
    assert proved["context"] == CONTEXT


def test_the_proof_is_verified(run: Run, files: Files) -> None:
    done = run(*verify(files, input=files.input, output=files.output, context=CONTEXT))
    assert done.status == ExitStatus.OK
    assert done.data["verified"] is True
    assert done.data["reason"] is None
    assert done.data["verify_ms"] > 0
    assert done.data["digest"] == files.proved["digest"]
    assert done.narration == ""


def test_the_proof_is_verified_for_a_person(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(verify(files)) == 0
    assert f"verified  model {files.proved['digest']}" in capsys.readouterr().out


def test_an_imported_program_serves_as_the_model(run: Run, files: Files, tmp_path: Path) -> None:
    program, key = tmp_path / "digits.nxm", tmp_path / "vk.bin"
    assert run("model", "import", files.model, "--output", program).data["program_bytes"] == program.stat().st_size
    assert run("model", "commit", program, "--key", key).data["digest"] == files.proved["digest"]
    assert key.read_bytes() == files.key.read_bytes()


def test_a_copy_under_another_name_is_the_same_model(run: Run, files: Files, tmp_path: Path) -> None:
    copy, key = tmp_path / "numerals.tflite", tmp_path / "vk.bin"
    copy.write_bytes(files.model.read_bytes())
    assert run("model", "commit", copy, "--key", key).data["digest"] == files.proved["digest"]
    assert key.read_bytes() != files.key.read_bytes(), "the name is in the key"
    assert run(*verify(files, key=key, input=files.input, output=files.output)).data["verified"] is True


@pytest.mark.parametrize(
    "options", [("--weights", "inside"), ("--clear-input",), ("--commit-output",), ("--security", "128"), ("--threads", "1")]
)
def test_every_kind_of_proof(run: Run, files: Files, tmp_path: Path, options: tuple[str, ...]) -> None:
    proof, key, output = tmp_path / "p", tmp_path / "vk", tmp_path / "y.npy"
    key_options = options if options[0] in {"--weights", "--security"} else ()
    assert run("model", "commit", files.model, "--key", key, *key_options).status == 0
    assert run("prove", "--model", files.model, "--input", files.input, "--output", output, "--proof", proof, *options).status == 0
    assert output.read_bytes() == files.output.read_bytes()
    assert run("verify", "--key", key, "--proof", proof, "--input", files.input, "--output", output).data["verified"] is True
    refused = run("verify", "--key", key, "--proof", proof, "--input", files.other_input)
    assert (refused.status, refused.data["reason"]) == (ExitStatus.REJECTED, "input")


def test_float_edges(run: Run, tmp_path: Path) -> None:
    model, x, y, proof, key = (tmp_path / name for name in ("m.tflite", "x.npy", "y.npy", "p", "vk"))
    model.write_bytes(models.float_edges())
    np.save(x, np.array([[0.31, -2.0, 1.77, 99.0]], np.float32))
    assert run("model", "inspect", model).data["inputs"][0]["dtype"] == "float32"
    assert run("model", "commit", model, "--key", key).status == 0
    assert run("prove", "--model", model, "--input", x, "--output", y, "--proof", proof).status == 0
    assert np.load(y).dtype == np.float32
    assert run("verify", "--key", key, "--proof", proof, "--input", x, "--output", y).data["verified"] is True
    np.save(y, np.nextafter(np.load(y), np.float32(1e9)))
    assert run("verify", "--key", key, "--proof", proof, "--output", y).data["reason"] == "output"


def test_several_inputs(run: Run, tmp_path: Path) -> None:
    model, x, y, proof, key = (tmp_path / name for name in ("m.tflite", "x.npz", "y.npy", "p", "vk"))
    model.write_bytes(models.two_inputs())
    first, second = np.arange(-3, 3, dtype=np.int8)[None], np.arange(6, 12, dtype=np.int8)[None]
    save_npz(x, {"second/value:0": second, "first": first})
    assert run("model", "commit", model, "--key", key).status == 0
    assert run("prove", "--model", model, "--input", x, "--output", y, "--proof", proof).status == 0
    assert run("verify", "--key", key, "--proof", proof, "--input", x, "--output", y).data["verified"] is True
    save_npz(x, {"second/value:0": first, "first": second})
    assert run("verify", "--key", key, "--proof", proof, "--input", x).data["reason"] == "input"


@pytest.mark.parametrize("options", [(), ("--no-mdns",)])
def test_the_demo_is_one_receipt_of_two_agents(run: Run, options: tuple[str, ...]) -> None:
    done = run("demo", *options)
    assert done.status == 0, done.narration
    assert done.data["verified"] is done.data["forgery_refused"] is True
    assert done.data["answer"] == done.data["shown"]
    assert done.data["requester"] != done.data["worker"]
    assert done.data["found_by"] in (("static",) if options else ("mdns", "static"))
    ours, theirs = done.data["ledgers"]["alder"], done.data["ledgers"]["birch"]
    assert -ours["amount_ucr"] == theirs["amount_ucr"] > 0
    assert ours["id"] == theirs["id"]
    assert ours["signed"] == theirs["signed"] == "both"
    assert {"prove_ms", "verify_ms", "proof_bytes", "security_bits"} <= set(done.data)
    assert done.data["cores"] == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("changes", "said"), [({"forgery_refused": False}, "a forged proof was accepted"), ({"verified": False}, "not verified")]
)
def test_a_demo_that_shows_a_fault_fails(run: Run, monkeypatch: pytest.MonkeyPatch, changes: dict[str, bool], said: str) -> None:
    from nexus_edge import demo

    receipt = demo.demonstrate(mdns=False)
    monkeypatch.setattr(demo, "demonstrate", lambda **_: dataclasses.replace(receipt, **changes))  # type: ignore[arg-type]
    done = run("demo")
    assert done.status != 0
    assert said in done.narration


def test_a_demo_that_does_not_come_to_its_end_says_so_first(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nexus_edge import demo

    def fails(**_: bool) -> demo.Receipt:
        raise JobFailed("the job was not done", "birch has died")

    monkeypatch.setattr(demo, "demonstrate", fails)
    assert main(["demo"]) != 0
    told = capsys.readouterr()
    assert told.out == "✗ NOT VERIFIED\n"
    assert "birch has died" in told.err
    done = run("demo")
    assert (done.data["verified"], done.data["error"]["why"]) == (False, "birch has died")


def test_the_receipt_says_how_long_it_took_to_build(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--no-mdns", "--built", "38"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["took"].endswith(" s, after 38 s of building")
    assert lines["executed"].endswith(f"on {len(os.sched_getaffinity(0))} CPU cores")


# What is rejected


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [("input", "other_input", "input"), ("output", "wrong_output", "output"), ("context", "cd" * 32, "context")],
)
def test_a_proof_about_something_else(run: Run, files: Files, tmp_path: Path, option: str, value: str, reason: str) -> None:
    wrong = np.load(files.output)
    wrong[0, 3] += 1
    np.save(tmp_path / "wrong.npy", wrong)
    known = {"other_input": files.other_input, "wrong_output": tmp_path / "wrong.npy"}
    done = run(*verify(files, **{option: known.get(value, value)}))
    assert done.status == ExitStatus.REJECTED
    assert done.data["verified"] is False
    assert done.data["reason"] == reason
    assert done.data["error"]["kind"] == "rejected"
    assert "the proof is rejected" in done.narration


def test_another_model_s_key(run: Run, files: Files, tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(models.two_inputs())
    assert run("model", "commit", tmp_path / "m.tflite", "--key", tmp_path / "vk").status == 0
    done = run(*verify(files, key=tmp_path / "vk"))
    assert (done.status, done.data["verified"], done.data["reason"]) == (ExitStatus.REJECTED, False, "statement")


@pytest.mark.parametrize("options", [("--weights", "inside"), ("--security", "128")])
def test_another_kind_of_key_of_the_same_model(run: Run, files: Files, tmp_path: Path, options: tuple[str, ...]) -> None:
    assert run("model", "commit", files.model, "--key", tmp_path / "vk", *options).status == 0
    done = run(*verify(files, key=tmp_path / "vk"))
    assert (done.status, done.data["verified"], done.data["reason"]) == (ExitStatus.REJECTED, False, "statement")


@pytest.mark.parametrize("position", [0, 9, 12, 20, 60, 100, 0.2, 0.5, 0.8, 0.999])
@pytest.mark.parametrize("which", ["proof", "key"])
def test_a_changed_byte(run: Run, files: Files, tmp_path: Path, which: str, position: float) -> None:
    content = bytearray({"proof": files.proof, "key": files.key}[which].read_bytes())
    content[int(position * len(content)) if 0 < position < 1 else int(position)] ^= 1
    (tmp_path / "changed").write_bytes(content)
    done = run(*verify(files, **{which: tmp_path / "changed"}))
    assert (done.status, done.data["verified"]) == (ExitStatus.REJECTED, False)
    assert done.data["reason"] is not None


@pytest.mark.parametrize("which", ["proof", "key"])
@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: data[: len(data) // 2], lambda data: data[:0]]
)
def test_another_length(run: Run, files: Files, tmp_path: Path, which: str, change: Callable[[bytes], bytes]) -> None:
    content = {"proof": files.proof, "key": files.key}[which].read_bytes()
    (tmp_path / "changed").write_bytes(change(content))
    done = run(*verify(files, **{which: tmp_path / "changed"}))
    assert (done.status, done.data["verified"]) == (ExitStatus.REJECTED, False)
    assert done.data["reason"] in {"truncated", "trailing", "malformed"}


# What goes wrong before


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["frobnicate"],
        ["verify", "--key", "k"],
        ["prove", "--model", "m"],
        ["verify", "--key", "k", "--proof", "p", "--context", "abcd"],
        ["infer", "--model", "m", "--input", "x", "--output", "y", "--threads", "0"],
        ["model", "commit", "m", "--key", "k", "--security", "80"],
        ["model", "inspect", "m", "--sem", "tflm"],
    ],
)
def test_wrong_usage(run: Run, words: list[str]) -> None:
    done = run(*words)
    assert (done.status, done.data["error"]["kind"]) == (ExitStatus.USAGE, "usage")
    assert "--help" in done.narration


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "TFL3"),
        (b"nothing like a model", "TFL3"),
        (b"NXEMODEL", "header"),
        (models.float_arithmetic(), "FULLY_CONNECTED"),
        (demo_model()[:3000], ""),
    ],
)
def test_models_that_cannot_be_proved(run: Run, tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "m").write_bytes(content)
    done = run("model", "inspect", tmp_path / "m")
    assert (done.status, done.data["error"]["kind"]) == (ExitStatus.MODEL, "model")
    assert why in done.narration


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.zeros((1, 8, 8, 1), np.uint8), "expected int8 [1, 8, 8, 1], got uint8 [1, 8, 8, 1]"),
        (np.zeros((1, 8, 8, 1), np.float32), "got float32"),
        (np.zeros((8, 8), np.int8), "got int8 [8, 8]"),
        (np.zeros((1, 224, 224, 3), np.int8), "got int8 [1, 224, 224, 3]"),
        (np.array([None]), "got object [1]"),
    ],
)
@pytest.mark.parametrize("command", ["infer", "prove", "verify"])
def test_inputs_that_do_not_fit(run: Run, files: Files, tmp_path: Path, command: str, array: NDArray[Any], why: str) -> None:
    np.save(tmp_path / "bad.npy", array, allow_pickle=True)
    words = {
        "infer": ["infer", "--model", files.model, "--output", tmp_path / "y.npy"],
        "prove": ["prove", "--model", files.model, "--proof", tmp_path / "p"],
        "verify": ["verify", "--key", files.key, "--proof", files.proof],
    }
    done = run(*words[command], "--input", tmp_path / "bad.npy")
    assert (done.status, done.data["error"]["kind"]) == (ExitStatus.INPUT, "input")
    assert why in done.narration
    assert list(tmp_path.iterdir()) == [tmp_path / "bad.npy"]


def test_an_unverified_proof_is_never_called_verified(run: Run, files: Files, tmp_path: Path) -> None:
    done = run(*verify(files, key=tmp_path / "absent"))
    assert done.status == ExitStatus.FILE
    assert done.data["verified"] is False
    assert done.data["reason"] is None


def test_files_that_cannot_be_read_or_written(run: Run, files: Files, tmp_path: Path) -> None:
    assert run("model", "inspect", tmp_path / "absent").status == ExitStatus.FILE
    assert run("model", "commit", files.model, "--key", tmp_path / "absent" / "vk").status == ExitStatus.FILE
    assert run("infer", "--model", files.model, "--input", tmp_path, "--output", tmp_path / "y").status == ExitStatus.FILE


# What never happens


class Panic(BaseException):
    """As a panic of the native module arrives: no `Exception`."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("broken"), ExitStatus.INTERNAL),
        (Panic("unwrap"), ExitStatus.INTERNAL),
        (MemoryError(), ExitStatus.MACHINE),
        (KeyboardInterrupt(), ExitStatus.INTERRUPTED),
        (OSError("broken"), ExitStatus.INTERNAL),
    ],
)
def test_no_traceback(run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: ExitStatus) -> None:
    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(models_commands, "infer", fail)
    monkeypatch.delenv("NEXUS_EDGE_DEBUG", raising=False)
    done = run("infer", "--model", "m", "--input", "x", "--output", "y")
    assert done.status == status
    assert "Traceback" not in done.narration
    monkeypatch.setenv("NEXUS_EDGE_DEBUG", "1")
    assert "Traceback" in run("infer", "--model", "m", "--input", "x", "--output", "y").narration


def test_bugs_say_where_to_report_them(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_commands, "infer", lambda _: 1 / 0)
    done = run("infer", "--model", "m", "--input", "x", "--output", "y")
    assert "ZeroDivisionError" in done.narration
    assert "please report it" in done.narration


def test_the_exit_status_survives_a_reader_that_left(files: Files) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "nexus_edge", *verify(files, input=files.other_input), "--json"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(write)
    assert done.returncode == ExitStatus.REJECTED
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("closed", [False, True])
def test_an_answer_that_cannot_be_written_is_a_failure(files: Files, closed: bool) -> None:
    command = [sys.executable, "-m", "nexus_edge", *verify(files), "--json"]
    if closed:
        command = ["/bin/sh", "-c", 'exec "$@" >&-', "sh", *command]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert done.returncode == ExitStatus.FILE
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_loads_neither_numpy_nor_the_prover() -> None:
    program = """
import sys
from nexus_edge.cli import main
status = main(["--version"])
heavy = {"numpy", "rich", "nexus_edge.proofs", "tflite"} & set(sys.modules)
print(status, sorted(heavy))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    version, loaded = done.stdout.splitlines()
    assert version.startswith("nexus-edge 0.")
    assert loaded == "0 []"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("model", "infer", "prove", "verify", "demo"))


def test_the_exit_statuses_are_documented() -> None:
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text()
    assert all(f"| {status.value} |" in page for status in ExitStatus)
