"""Errors on their way over the admin socket: what is raised in the agent is raised in the client."""

from typing import Final

from nexus_edge import errors
from nexus_edge.api.models import Problem


class Busy(errors.AgentUnavailable):
    """The agent answers, but cannot take this request now."""


_KINDS: Final[tuple[tuple[str, type[errors.NexusEdgeError], int], ...]] = (
    ("usage", errors.UsageError, 400),
    ("model", errors.ModelError, 422),
    ("input", errors.BadInput, 422),
    ("rejected", errors.ProofRejected, 422),
    ("file", errors.FileError, 422),
    ("opening", errors.OpeningError, 422),
    ("peer", errors.PeerError, 502),
    ("ledger", errors.LedgerError, 409),
    ("job", errors.JobFailed, 409),
    ("config", errors.ConfigError, 409),
    ("identity", errors.IdentityError, 409),
    ("cancelled", errors.Cancelled, 409),
    ("busy", Busy, 503),
    ("agent", errors.AgentUnavailable, 503),
    ("error", errors.NexusEdgeError, 409),
)
"""Of each kind its class and HTTP status. The first that fits names an error; the name is the contract."""

INTERNAL: Final = 500


def problem(error: errors.NexusEdgeError) -> tuple[Problem, int]:
    """What is sent for an error, and its status."""
    kind, _, status = next(row for row in _KINDS if isinstance(error, row[1]))
    reason = error.reason.value if isinstance(error, errors.ProofRejected) else ""
    return Problem(kind=kind, what=error.what, why=error.why, hint=error.hint, reason=reason), status


def error_from(problem: Problem) -> errors.NexusEdgeError:
    """The error that was sent."""
    kind = next((row[1] for row in _KINDS if row[0] == problem.kind), errors.NexusEdgeError)
    if kind is errors.ProofRejected:
        reasons = {reason.value: reason for reason in errors.RejectReason}
        if problem.reason in reasons:
            return errors.ProofRejected(reasons[problem.reason], problem.why, problem.hint)
        kind = errors.JobFailed
    return kind(problem.what, problem.why, problem.hint)


def kinds() -> list[tuple[str, str, int]]:
    """Name, meaning and status of each, for the documentation."""
    return [(name, (kind.__doc__ or "").strip().splitlines()[0], status) for name, kind, status in _KINDS]
