"""The tables of docs/mesh-protocol.md, from the types that encode and decode and from the constants that bound them."""

import ast
import inspect
import re
from types import ModuleType

from nexus_edge.wire import limits
from nexus_edge.wire.fields import table
from nexus_edge.wire.messages import MESSAGES
from nexus_edge.wire.objects import OBJECTS
from nexus_edge.wire.refusals import Code


def describe_objects() -> str:
    """Signed objects, as a table in Markdown."""
    rows = ["| type | signer | fields | bytes at most |", "|---|---|---|--:|"]
    rows += [f"| `{one.kind}` | {one.signer} | {_fields(one, skip=('iss', 'at'))} | {one.limit} |" for one in OBJECTS]
    return "\n".join(rows)


def describe_messages() -> str:
    """Unsigned bodies."""
    rows = ["| body | fields | |", "|---|---|---|"]
    rows += [f"| {one.__name__} | {_fields(one)} | {_said(one)} |" for one in MESSAGES]
    return "\n".join(rows)


def describe_refusals() -> str:
    """Codes and statuses."""
    rows = ["| code | status |", "|---|---|"]
    rows += [f"| `{code.value}` | {code.status} |" for code in Code]
    return "\n".join(rows)


def describe_limits(*modules: ModuleType) -> str:
    """Public constants of modules, those of the protocol if none is named, with the reasons that stand beside or below them."""
    rows = ["| limit | value | why |", "|---|---|---|"]
    rows += [f"| `{name}` | {value} | {why} |" for module in modules or (limits,) for name, value, why in _constants(module)]
    return "\n".join(rows)


def _constants(module: ModuleType) -> list[tuple[str, str, str]]:
    """Name, value and reason of every number that a module defines."""
    source = inspect.getsource(module)
    lines, body = source.splitlines(), ast.parse(source).body
    found = []
    for at, line in enumerate(body):
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name) or line.value is None:
            continue
        name = line.target.id
        if name.startswith("_") or name in ("KIB", "MIB", "GIB") or type(getattr(module, name)) not in (int, float):
            continue
        below = body[at + 1] if at + 1 < len(body) else None
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            why = " ".join(below.value.value.split())
        else:
            why = lines[line.lineno - 1].partition("  # ")[2]
        found.append((name, _value(ast.unparse(line.value), getattr(module, name)), why))
    return found


def _value(written: str, value: int | float) -> str:
    """As it is written, with units; and what it comes to, if that takes names to know."""
    units = {"KIB": "KiB", "MIB": "MiB", "GIB": "GiB"}
    size = re.fullmatch(r"(?:(\d+) (?:\*|<<) )?(KIB|MIB|GIB)", written)
    if size:
        return f"{size[1] or 1} {units[size[2]]}"
    if re.fullmatch(r"[\d_.]+", written):
        return f"{value:,g}" if isinstance(value, float) else f"{value:,}" if value >= 10_000 else str(value)
    shown = f"{value:,g}" if isinstance(value, float) else f"{value:,}"
    return shown if re.search("[A-Z]", written) else f"{written.replace('**', '^').replace(' * ', ' x ')}"


def _fields(of: type, skip: tuple[str, ...] = ()) -> str:
    return ", ".join(f"`{field.key}` {field.kind.show()}" for field in table(of) if field.key not in skip) or "none"


def _said(of: type) -> str:
    return " ".join((of.__doc__ or "").split())
