"""Proofs that an exact int8 program was run on a committed input.

model = load_model("model.tflite")
key = commit_model(model)
proved = prove(key, [image])
verify(key.verifying_key, proved.proof, outputs=proved.outputs)
"""

from nexus_edge.proofs import native_loader

# First of all: whoever imports `_native`, from here or elsewhere, gets the build that this processor can run.
_native = native_loader.load()

from nexus_edge.errors import OpeningError, OpeningSpent, ProofRejected, RejectReason  # noqa: E402
from nexus_edge.proofs.holding import HeldOpening, OpeningFile, commit_tensor  # noqa: E402
from nexus_edge.proofs.key import ProvingKey, VerifyingKey, commit_model  # noqa: E402
from nexus_edge.proofs.model import Model, load_model  # noqa: E402
from nexus_edge.proofs.opening import Opening  # noqa: E402
from nexus_edge.proofs.proof import Proof, Statement  # noqa: E402
from nexus_edge.proofs.proving import Proved, prove  # noqa: E402
from nexus_edge.proofs.verification import verify  # noqa: E402

__all__ = [
    "HeldOpening",
    "Model",
    "Opening",
    "OpeningError",
    "OpeningFile",
    "OpeningSpent",
    "Proof",
    "ProofRejected",
    "Proved",
    "ProvingKey",
    "RejectReason",
    "Statement",
    "VerifyingKey",
    "commit_model",
    "commit_tensor",
    "load_model",
    "prove",
    "verify",
]
