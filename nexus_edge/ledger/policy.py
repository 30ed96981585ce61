"""The owner's limits, from the settings."""

from nexus_edge.config import Settings
from nexus_edge.identity import parse_node_id
from nexus_edge.ledger.credit import CreditPolicy, Group


def credit_policy(settings: Settings) -> CreditPolicy:
    """What the settings say. Raises `IdentityError` for a key with a typing error."""
    lent, spent = settings.credit, settings.spend
    groups = tuple(Group(parse_node_id(group.key), group.name, group.line) for group in settings.fleet.groups)
    return CreditPolicy(lent.private_bucket, lent.public_bucket, lent.cap, spent.open, spent.day, groups=groups)
