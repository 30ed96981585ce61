"""Errors that a user meets: each says what happened, why, and what to do."""

from enum import StrEnum


class NexusEdgeError(Exception):
    """Base of every error this package raises on purpose.

    `what` happened, `why`, and a `hint` what to do about it (empty where there is nothing to do).
    """

    def __init__(self, what: str, why: str = "", hint: str = "") -> None:
        super().__init__(what, why, hint)
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.what}: {self.why}" if self.why else self.what
        return f"{text} ({self.hint})" if self.hint else text


class ModelError(NexusEdgeError):
    """The model cannot be proved.

    `operator` (index in the file), its `kind` and the `tensor`'s name say where, as far as there is a place.
    """

    def __init__(
        self, what: str, why: str = "", hint: str = "", *, operator: int | None = None, kind: str | None = None, tensor: str | None = None
    ) -> None:
        super().__init__(what, why, hint)
        self.operator = operator
        self.kind = kind
        self.tensor = tensor


class UnsupportedModel(ModelError):
    """A well-formed model holds something that has no exact integer meaning here: names the operator and tensor."""


class MalformedModel(ModelError):
    """The bytes are not a model."""


class BadInput(NexusEdgeError):
    """An array or file of arrays does not fit: format, dtype, shape, number, or values for which the model is undefined."""


class UsageError(NexusEdgeError):
    """The command line makes no sense."""


class FileError(NexusEdgeError):
    """A file cannot be read or written."""


class UnsupportedCpu(NexusEdgeError, ImportError):
    """No build of the native module that is installed here runs on this processor."""


class NativeModuleMissing(NexusEdgeError, ImportError):
    """The native module is not built, or its file is damaged."""


class Cancelled(NexusEdgeError):
    """The caller asked to stop."""


class ProverError(NexusEdgeError):
    """A proof could not be made although model and input are good."""


class NoRandomness(ProverError):
    """The operating system gave no randomness, without which nothing is hidden."""


class SelfCheckFailed(ProverError):
    """The prover's own reading of its proof failed, so that nothing of it was given away: a bug, or a machine that computes wrongly."""


class UncoveredMask(ProverError):
    """A challenge gave the mask of the proof no weight, which happens once in 2^128 proofs: prove again."""


class OpeningError(NexusEdgeError):
    """An opening is missing, damaged, or of another tensor, parameter set or commitment."""


class OpeningSpent(OpeningError):
    """The rows that may still be opened of a commitment are fewer than were asked for."""


class ConfigError(NexusEdgeError):
    """A setting is unknown, malformed or out of range: names the key and where it was set."""


class IdentityError(NexusEdgeError):
    """A node key or node id is missing, malformed, unsafe or protected by another password."""


class AgentUnavailable(NexusEdgeError):
    """No agent answers on the admin socket, or it went away."""


class PeerError(NexusEdgeError):
    """A peer cannot be reached, is not who it should be, or said something that makes no sense."""


class LedgerError(NexusEdgeError):
    """The ledger cannot be opened, read or written, or contradicts itself."""


class JobFailed(NexusEdgeError):
    """A job ended without a verified answer: the reason, and what was tried."""


class VerifierFailed(NexusEdgeError):
    """A process that was asked to verify a proof did not: it refused, or could not run."""


class RejectReason(StrEnum):
    """Why a proof is not accepted.

    The first nine come from the verifier, three from comparing with what the caller expects, and the last two from what it has not been shown.
    """

    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    TRAILING = "trailing"
    NOT_CANONICAL = "not-canonical"
    STATEMENT = "statement"
    EQUATION = "equation"
    MERKLE = "merkle"
    ROW = "row"
    DEGENERATE = "degenerate"
    INPUT = "input"
    OUTPUT = "output"
    CONTEXT = "context"
    UNREGISTERED = "unregistered"
    UNLINKED = "unlinked"


class ProofRejected(NexusEdgeError):
    """The proof does not show what it was asked to show. There is no other way for a verification to fail."""

    def __init__(self, reason: RejectReason, why: str, hint: str = "") -> None:
        unproven = reason in (RejectReason.UNREGISTERED, RejectReason.UNLINKED)
        super().__init__("the proof is invalid" if unproven else "the proof is rejected", why, hint)
        self.reason = reason
