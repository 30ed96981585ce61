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
from nexus_edge.proofs.evidence import EvidenceRecord  # noqa: E402
from nexus_edge.proofs.holding import HeldOpening, OpeningFile, commit_tensor  # noqa: E402
from nexus_edge.proofs.key import ProvingKey, VerifyingKey, commit_model, reopen_model  # noqa: E402
from nexus_edge.proofs.model import Model, load_model  # noqa: E402
from nexus_edge.proofs.opening import Opening  # noqa: E402
from nexus_edge.proofs.proof import Proof, Statement  # noqa: E402
from nexus_edge.proofs.proving import Proved, prove  # noqa: E402
from nexus_edge.proofs.registration import Link, Registration, link, register, verify_link, verify_registration  # noqa: E402
from nexus_edge.proofs.secret import HeldSecret, ModelSecret, ModelSecretFile  # noqa: E402
from nexus_edge.proofs.verification import compare, verify  # noqa: E402

__all__ = [
    "EvidenceRecord",
    "HeldOpening",
    "HeldSecret",
    "Link",
    "Model",
    "ModelSecret",
    "ModelSecretFile",
    "Opening",
    "OpeningError",
    "OpeningFile",
    "OpeningSpent",
    "Proof",
    "ProofRejected",
    "Proved",
    "ProvingKey",
    "Registration",
    "RejectReason",
    "Statement",
    "VerifyingKey",
    "commit_model",
    "commit_tensor",
    "compare",
    "link",
    "load_model",
    "prove",
    "register",
    "reopen_model",
    "verify",
    "verify_link",
    "verify_registration",
]
