"""The command line, which dies at a commit: `python -m tests.support.dying NAME POINT ARGUMENT...`."""

import sys
from typing import Any

from nexus_edge.cli import main
from nexus_edge.ledger import Ledger
from tests.support.node import Crash

if __name__ == "__main__":
    name, point, *arguments = sys.argv[1:]
    opened = Ledger.open

    async def to_die(*given: Any, **named: Any) -> Ledger:
        return await opened(*given, **named, hook=Crash(name, point))

    Ledger.open = to_die  # type: ignore[method-assign]
    sys.exit(main(arguments))
