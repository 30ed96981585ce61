"""The main job on one machine: a real model is imported, run and proved here, and verified by another process.

The other process gets files only: the verifying key, the proof, the input and the output. It is the `nexus-edge verify` command.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nexus_edge.data import demo_digits, demo_model
from nexus_edge.errors import ProverError, VerifierFailed
from nexus_edge.files import write_whole
from nexus_edge.memory import peak_rss
from nexus_edge.progress import ProgressBars
from nexus_edge.proofs import HeldOpening, Model, commit_model, prove
from nexus_edge.proofs.arrays import write_tensors
from nexus_edge.units import show_mode, show_size, show_time


@dataclass(frozen=True)
class Receipt:
    """What was proved, what it cost, and who verified it."""

    verified: bool
    model: str
    digest: str
    shown: int
    """The digit in the image."""
    answer: int
    """The digit that the model reads."""
    output: list[int]
    output_sha256: str
    prove_ms: float
    phases_ms: dict[str, float]
    verify_ms: float
    proof_bytes: int
    key_bytes: int
    peak_rss_bytes: int
    security_bits: float
    mode: str
    """`zk`: the proof shows nothing of the image but the answer."""
    prover_process: int
    verifier_process: int

    def data(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        phases = ", ".join(f"{phase} {show_time(ms)}" for phase, ms in self.phases_ms.items())
        return [
            f"model      {self.model}, digest {self.digest[:16]}…",
            f"answer     {self.answer} (the image shows a {self.shown}), output sha256 {self.output_sha256[:16]}…",
            f"proved     in {show_time(self.prove_ms)}, {show_size(self.peak_rss_bytes)} of memory",
            f"phases     {phases}",
            f"proof      {show_size(self.proof_bytes)}, key {show_size(self.key_bytes)}, {self.security_bits:.1f} bits of security, {show_mode(self.mode)}",
            f"verified   in {show_time(self.verify_ms)} by process {self.verifier_process} (proved by process {self.prover_process})",
        ]


def demonstrate() -> Receipt:
    """Prove one held-out digit and have another process verify it. Raises `VerifierFailed` if that process refuses."""
    image, label = demo_digits()[0]
    with ProgressBars() as bars:
        bars("import", 0.0)
        model = Model.from_tflite(demo_model(), name="digits")
        bars("commit", 0.0)
        key = commit_model(model)
        proved = prove(key, [image], progress=bars)
    (output,) = proved.outputs
    if not np.array_equal(output, model.run([image])[0]):
        raise ProverError("the proof shows another output than the executor computed")
    proof, verifying_key = proved.proof.to_bytes(), key.verifying_key.to_bytes()
    with tempfile.TemporaryDirectory(prefix="nexus-edge-demo-") as folder:
        place = Path(folder)
        write_whole(place / "key.bin", verifying_key, "verifying key")
        write_whole(place / "proof.bin", proof, "proof")
        (opening,) = proved.input_openings
        if isinstance(opening, HeldOpening):
            # For the comparison with the image: whoever has only key and proof learns nothing of it.
            opening.share(0).save(place / "proof.bin.opening")
        write_tensors(place / "input.npy", model.inputs, [image], "input")
        write_tensors(place / "output.npy", model.outputs, [output], "output")
        verifier, verdict = verify_elsewhere(place)
    return Receipt(
        verified=verdict["verified"],
        model="digits (int8, 8x8 image to 10 probabilities)",
        digest=key.verifying_key.digest.hex(),
        shown=label,
        answer=int(output.argmax()),
        output=output.ravel().tolist(),
        output_sha256=hashlib.sha256(output.tobytes()).hexdigest(),
        prove_ms=proved.prove_ms,
        phases_ms=proved.phases_ms,
        verify_ms=verdict["verify_ms"],
        proof_bytes=len(proof),
        key_bytes=len(verifying_key),
        peak_rss_bytes=peak_rss(),
        security_bits=proved.security_bits,
        mode=key.verifying_key.mode,
        prover_process=os.getpid(),
        verifier_process=verifier,
    )


def verify_elsewhere(place: Path) -> tuple[int, dict[str, Any]]:
    """Process id and verdict of `nexus-edge verify` on the files in a folder."""
    command = [sys.executable, "-m", "nexus_edge", "verify", "--json"]
    for option, name in (("--key", "key.bin"), ("--proof", "proof.bin"), ("--input", "input.npy"), ("--output", "output.npy")):
        command += [option, str(place / name)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        answer, narration = process.communicate(timeout=120)
    if process.returncode != 0:
        raise VerifierFailed("the other process did not verify the proof", f"status {process.returncode}: {narration.strip()}")
    verdict: dict[str, Any] = json.loads(answer)
    return process.pid, verdict
