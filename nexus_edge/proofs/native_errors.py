"""The one crossing from the native module's errors to this package's."""

from collections.abc import Iterator
from contextlib import contextmanager

from nexus_edge.errors import (
    BadInput,
    Cancelled,
    NoRandomness,
    ProofRejected,
    ProverError,
    RejectReason,
    SelfCheckFailed,
    UncoveredMask,
    UnsupportedModel,
)
from nexus_edge.proofs import _native

_PROVER_ERRORS = {"entropy": NoRandomness, "self-check": SelfCheckFailed, "uncovered": UncoveredMask}


@contextmanager
def translated() -> Iterator[None]:
    """Raise this package's error for each error of the native module."""
    try:
        yield
    except _native.Rejected as rejected:
        raise ProofRejected(RejectReason(rejected.kind), str(rejected)) from rejected
    except _native.InputError as bad:
        raise BadInput("the input does not fit the model", str(bad)) from bad
    except _native.ProgramError as unsupported:
        raise UnsupportedModel("the model cannot be proved", str(unsupported)) from unsupported
    except _native.Cancelled as cancelled:
        raise Cancelled("stopped") from cancelled
    except _native.NativeError as failed:
        raise _PROVER_ERRORS.get(failed.kind, ProverError)("the proof could not be made", str(failed)) from failed
