"""Writes the pages of docs/ that are made from code: docs/settings.md and docs/admin-api.md. A test compares them."""

import sys
from pathlib import Path

from nexus_edge.api import reference as api
from nexus_edge.config import reference as settings

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {"settings.md": settings.page, "admin-api.md": api.page}


def main() -> int:
    """Write them all."""
    for name, page in PAGES.items():
        (DOCS / name).write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
