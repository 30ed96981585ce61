"""The command line's arguments, in groups. What a command does is in `nexus_edge.commands`, and is not imported to read its arguments."""

from collections.abc import Callable
from typing import Any, Final

from nexus_edge.arguments.node import add_node
from nexus_edge.arguments.proofs import add_models, add_proofs
from nexus_edge.arguments.work import add_work

GROUPS: Final[tuple[Callable[[Any], None], ...]] = (add_node, add_work, add_models, add_proofs)
"""In the order in which `--help` shows them."""
