"""Rewrites the tables of docs/mesh-protocol.md, which are made from the types that encode and decode. A test compares them."""

import re
import sys
from pathlib import Path

from nexus_edge.transport.routes import describe_routes
from nexus_edge.wire.describe import describe_limits, describe_messages, describe_objects, describe_refusals

PAGE = Path(__file__).parent.parent / "docs" / "mesh-protocol.md"
TABLES = {
    "objects": describe_objects,
    "messages": describe_messages,
    "routes": describe_routes,
    "refusals": describe_refusals,
    "limits": describe_limits,
}


def made(text: str) -> str:
    """The page with every table as the code has it."""
    for name, table in TABLES.items():
        section = f"<!-- {name} -->\n{table()}\n<!-- end -->"
        text, found = re.subn(rf"<!-- {name} -->.*?<!-- end -->", lambda _, section=section: section, text, flags=re.DOTALL)  # type: ignore[misc]
        if found != 1:
            raise ValueError(f"{PAGE.name} has {found} places for {name}")
    return text


def main() -> int:
    """Rewrite it."""
    PAGE.write_text(made(PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
