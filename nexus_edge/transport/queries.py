"""Queries of `GET` requests, written and read by the field table of their type."""

import re
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlencode

from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.fields import Integer, table

Query = TypeVar("Query")

_NUMBER: Final = re.compile("0|[1-9][0-9]{0,15}")
_OCTETS: Final = re.compile("(?:[0-9a-f]{2})*")


def write_query(query: object) -> str:
    """Integers in decimal, byte strings in hexadecimal."""
    values = {field.key: getattr(query, field.name) for field in table(type(query))}
    return urlencode({key: value.hex() if isinstance(value, bytes) else value for key, value in values.items()})


def read_query(kind: type[Query], text: str) -> Query:
    """Every field, no others, each in one form. Raises `BadObject`."""
    fields = table(kind)
    names = ", ".join(field.key for field in fields)
    try:
        given = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=len(fields))
    except ValueError:
        raise BadObject(f"the query must have {names}") from None
    values = dict(given)
    if len(given) != len(fields) or set(values) != {field.key for field in fields}:
        raise BadObject(f"the query must have {names}")
    found: dict[str, Any] = {}
    for field in fields:
        value = values[field.key]
        number = isinstance(field.kind, Integer)
        if not (_NUMBER if number else _OCTETS).fullmatch(value):
            raise BadObject(f"{field.key}: malformed")
        found[field.name] = field.kind.read(int(value) if number else bytes.fromhex(value))
    return kind(**found)
