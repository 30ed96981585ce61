"""The tables of docs/mesh-protocol.md, from the types that encode and decode."""

import inspect
import re

from nexus_edge.wire import limits
from nexus_edge.wire.fields import table
from nexus_edge.wire.messages import MESSAGES
from nexus_edge.wire.objects import OBJECTS
from nexus_edge.wire.refusals import Code


def describe_objects() -> str:
    """Signed objects, as a table in Markdown."""
    rows = ["| type | signer | fields | bytes at most |", "|---|---|---|---|"]
    rows += [f"| `{one.kind}` | {one.signer} | {_fields(one, skip=('iss', 'at'))} | {one.limit} |" for one in OBJECTS]
    return "\n".join(rows)


def describe_messages() -> str:
    """Unsigned bodies."""
    rows = ["| body | fields |", "|---|---|"]
    rows += [f"| {one.__name__} | {_fields(one)} |" for one in MESSAGES]
    return "\n".join(rows)


def describe_refusals() -> str:
    """Codes and statuses."""
    rows = ["| code | status |", "|---|---|"]
    rows += [f"| `{code.value}` | {code.status} |" for code in Code]
    return "\n".join(rows)


def describe_limits() -> str:
    """Limits with their reasons, which are the comments beside them."""
    rows = ["| limit | value | why |", "|---|---|---|"]
    for line in inspect.getsource(limits).splitlines():
        found = re.match(r"([A-Z_]+): Final = [^#]+(?:# (.*))?$", line)
        if found:
            rows.append(f"| `{found[1]}` | {getattr(limits, found[1])} | {found[2] or ''} |")
    return "\n".join(rows)


def _fields(of: type, skip: tuple[str, ...] = ()) -> str:
    return ", ".join(f"`{field.key}` {field.kind.show()}" for field in table(of) if field.key not in skip) or "none"
