"""Writes the tables of docs/mesh-protocol.md from the code. The prose between them is written by people; a test compares the tables."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from nexus_edge.transport import bodies, channel, connections, rates, routes, server
from nexus_edge.transport.routes import describe_routes
from nexus_edge.wire.describe import describe_limits, describe_messages, describe_objects, describe_refusals

PAGE = Path(__file__).parent.parent / "docs" / "mesh-protocol.md"

TABLES: dict[str, Callable[[], str]] = {
    "objects": describe_objects,
    "routes": describe_routes,
    "messages": describe_messages,
    "refusals": describe_refusals,
    "limits": describe_limits,
    "transport": lambda: describe_limits(server, connections, bodies, rates, routes, channel),
}

_SECTION = re.compile(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", re.DOTALL)


def rewritten(text: str) -> str:
    """The page with its tables made anew. Raises `KeyError` for a table that does not exist, `ValueError` if one is missing in the page."""
    names = _SECTION.findall(text)
    if sorted(names) != sorted(TABLES):
        raise ValueError(f"the page has tables {sorted(names)}, expected {sorted(TABLES)}")
    return _SECTION.sub(lambda found: f"<!-- generated: {found[1]} -->\n{TABLES[found[1]]()}\n<!-- end -->", text)


def main() -> int:
    """Rewrite the page."""
    PAGE.write_text(rewritten(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
