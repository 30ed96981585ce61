"""Who a node is: its id, the key behind it, and where that key is kept. Encrypted exports are in `nexus_edge.identity.export`."""

from nexus_edge.identity.ids import check_node_id, format_node_id, parse_node_id, short_id, verify_signature
from nexus_edge.identity.key import NodeKey
from nexus_edge.identity.keyfile import (
    NodeKeyMissing,
    create_node_key,
    credential,
    load_node_key,
    read_node_key,
    save_node_key,
)

__all__ = [
    "NodeKey",
    "NodeKeyMissing",
    "check_node_id",
    "create_node_key",
    "credential",
    "format_node_id",
    "load_node_key",
    "parse_node_id",
    "read_node_key",
    "save_node_key",
    "short_id",
    "verify_signature",
]
