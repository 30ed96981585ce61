"""Values of every object and message, drawn from the table that encodes them."""

import unicodedata
from typing import Any

from hypothesis import strategies as st

from nexus_edge.identity import NodeKey
from nexus_edge.types import NodeId
from nexus_edge.wire.errors import BadObject
from nexus_edge.wire.fields import Flag, Integer, Kind, Many, Maybe, NodeIdKind, Octets, Record, Text, table
from nexus_edge.wire.limits import CHUNK
from nexus_edge.wire.messages import Manifest, Upload

KEY = NodeKey.from_seed(b"\1" * 32)
OTHER = NodeKey.from_seed(b"\2" * 32)


def kinds(of: type) -> list[Kind]:
    """The kinds of all fields."""
    return [field.kind for field in table(of)]


def object_values(of: type, issuer: NodeId) -> st.SearchStrategy[Any]:
    """Objects by one issuer."""
    return st.builds(of, **{field.name: st.just(issuer) if field.name == "iss" else values(field.kind) for field in table(of)})


def message_values(of: type) -> st.SearchStrategy[Any]:
    """Messages."""
    if of is Manifest:
        sizes = st.integers(1, 4 * CHUNK)
        return sizes.flatmap(
            lambda size: st.builds(
                Manifest, size=st.just(size), chunks=st.tuples(*[st.binary(min_size=32, max_size=32)] * -(-size // CHUNK))
            )
        )
    if of is Upload:
        chunk = next(field.kind for field in table(Upload) if field.name == "chunk")
        return st.builds(Upload, manifest=message_values(Manifest), chunk=st.none()) | st.builds(
            Upload,
            manifest=st.none(),
            chunk=values(chunk.of),  # type: ignore[attr-defined]
        )
    return st.builds(of, **{field.name: values(field.kind) for field in table(of)})


def values(kind: Kind) -> st.SearchStrategy[Any]:
    """Values of a kind; lists and byte strings stay short."""
    match kind:
        case Octets(length=length, exact=exact):
            return st.binary(min_size=length if exact else 0, max_size=min(length, 64) if not exact else length)
        case NodeIdKind():
            return st.sampled_from([KEY.id, OTHER.id])
        case Integer(least=least, most=most):
            return st.integers(least, most)
        case Text(limit=limit):
            characters = st.characters(codec="utf-8", exclude_categories=["Cc"])
            texts = st.text(alphabet=characters, max_size=limit).map(lambda text: unicodedata.normalize("NFC", text))
            return texts.filter(lambda text: len(text.encode()) <= limit)
        case Flag():
            return st.booleans()
        case Many(of=inner, limit=limit):
            return st.lists(values(inner), max_size=min(limit, 4)).map(tuple)
        case Maybe(of=inner):
            return st.none() | values(inner)
        case Record(type=of):
            return message_values(of)
    raise BadObject(f"no values of {kind}")
