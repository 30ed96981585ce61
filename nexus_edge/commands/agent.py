"""`up` and `agent`: the agent in the foreground, for a person and as a service."""

import argparse
import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from nexus_edge import logging
from nexus_edge.commands.asking import settings_of
from nexus_edge.commands.result import Result
from nexus_edge.config import Settings
from nexus_edge.identity import NodeKey, NodeKeyMissing, create_node_key, format_node_id, load_node_key, short_id

if TYPE_CHECKING:
    from nexus_edge.agent import Agent


def up(arguments: argparse.Namespace) -> Result:
    """`nexus-edge up`: makes a key if there is none, says what is where, and serves until it is stopped."""
    settings = settings_of(arguments).settings
    try:
        key = load_node_key(settings.paths.key)
    except NodeKeyMissing:
        key = create_node_key(settings.paths.key)
        _say(f"a new node    {format_node_id(key.id)}")
        _say("              `nexus-edge key export --to FILE` makes a copy under a password, to be kept elsewhere")
    name = settings.node.name or short_id(key.id)
    _say(f"node          {name}" + (f" {short_id(key.id)}" if settings.node.name else "") + f", mesh {settings.mesh.name}")
    _say(f"peers         at {settings.mesh.listen}; mDNS {'on' if settings.mesh.mdns else 'off'}; {len(settings.mesh.peers)} named")
    _say(f"state         {settings.paths.state}")
    _say(f"admin         {settings.paths.socket}")
    return _serve(
        settings,
        key,
        lambda agent: _say(f"ready         on port {agent.server.port}. Ctrl-C stops it; open work goes on at the next start"),
    )


def agent(arguments: argparse.Namespace) -> Result:
    """`nexus-edge agent`: what a service manager starts. Raises `IdentityError` if there is no key."""
    settings = settings_of(arguments).settings
    return _serve(settings, load_node_key(settings.paths.key))


def _serve(settings: Settings, key: NodeKey, ready: "Callable[[Agent], None] | None" = None) -> Result:
    from nexus_edge.agent import serve

    logging.secrets.forbid(key.seed())
    logging.configure(level=settings.log.level, form=settings.log.format)
    asyncio.run(serve(settings, ready=ready))
    return Result({"stopped": True, "id": format_node_id(key.id)}, [])


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
