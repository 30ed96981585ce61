"""docs/admin-api.md, from the table of requests and the models."""

import ast
import inspect
import re
from types import UnionType
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel

from nexus_edge.api import models
from nexus_edge.api.errors import kinds
from nexus_edge.api.routes import AUDIT_HEADER, ROUTES

_INTRODUCTION: Final = f"""# The admin API

The agent's own interface for programs on the same machine: `nexus-edge status`, the terminal interface and scripts use it. It is HTTP/1.1
with JSON on a unix socket, which only the agent's user can open (mode 0600), or also the members of the group in `api.group` (0660).
[Settings](settings.md) says where it is. This page is made from the code (`scripts/make_reference.py`).

```
curl --unix-socket "$XDG_RUNTIME_DIR/nexus-edge/admin.sock" http://agent/v1/snapshot
```

Money is in micro-credits (`_ucr`), durations in milliseconds (`_ms`), sizes in bytes, moments in UTC (RFC 3339), fractions in [0, 1]. What is not
known is null, never zero. Fields may be added; what is here keeps its meaning.

A change (`POST`) is on record before it is made: who asked (uid, gid and pid as the kernel says), when and for what. Its answer names the
record in the header `{AUDIT_HEADER}`.

A stream is one JSON object a line. A reader gets the newest state there is; one that reads slowly misses states in between, and one that does
not read for five seconds is dropped.
"""


def page() -> str:
    """The whole page."""
    parts = [_INTRODUCTION, "## Requests\n\n| request | takes | gives | |\n|---|---|---|---|"]
    for route in ROUTES:
        takes = f"[{route.takes.__name__}](#{route.takes.__name__.lower()})" if route.takes else "a file" if route.file else ""
        gives = f"[{route.gives.__name__}](#{route.gives.__name__.lower()})" if route.gives else "bytes"
        parts.append(f"| `{route.method} {route.path}` | {takes} | {gives}{', a stream' if route.stream else ''} | {route.text} |")
    parts += [
        '\n## Errors\n\nAn answer that is not 200 is `{"error": Problem}`; in a stream that is a line.\n',
        "| kind | status | |\n|---|---|---|",
    ]
    parts += [f"| `{name}` | {status} | {meaning} |" for name, meaning, status in kinds()]
    parts += ["| `internal` | 500 | A bug: the agent's log has more. |", "\n## Objects"]
    for model in _models():
        parts += [f"\n### {model.__name__}\n\n{inspect.getdoc(model)}\n", "| field | type | |\n|---|---|---|"]
        parts += [f"| `{name}` | {kind} | {text} |" for name, kind, text in fields_of(model)]
    return "\n".join(parts) + "\n"


def fields_of(model: type[BaseModel]) -> list[tuple[str, str, str]]:
    """Name, type and meaning of each field."""
    meanings = _meanings(model)
    return [(name, _type(field.annotation), meanings.get(name, "")) for name, field in model.model_fields.items()]


def _models() -> list[type[BaseModel]]:
    found = [value for value in vars(models).values() if isinstance(value, type) and issubclass(value, models.View | models.Request)]
    return [model for model in found if model not in (models.View, models.Request)]


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """The string below each field."""
    body = ast.parse(inspect.getsource(model)).body[0]
    assert isinstance(body, ast.ClassDef)
    said = {}
    for before, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(after, ast.Expr):
            said[before.target.id] = re.sub(r"\s+", " ", str(ast.literal_eval(after.value)))
    return said


def _type(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        return f"list of {_type(arguments[0])}"
    if origin is UnionType or str(origin) == "typing.Union":
        return " or ".join("null" if one is type(None) else _type(one) for one in arguments)
    if str(origin) == "typing.Literal":
        return ", ".join(f"`{one}`" for one in arguments)
    if hasattr(kind, "__metadata__"):
        return _type(arguments[0])
    if hasattr(kind, "__supertype__"):
        return _type(kind.__supertype__)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return {"str": "text", "int": "integer", "float": "number", "bool": "boolean", "AwareDatetime": "moment", "bytes": "base64"}[
        kind.__name__
    ]
