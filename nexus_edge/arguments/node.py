"""Commands on this node: its key, its settings, and the agent itself."""

import argparse
from pathlib import Path
from typing import Any

from nexus_edge.arguments.options import Sets, command, file, node_folder, positive, settings, subcommands


def add_node(commands: Any) -> None:
    """`up`, `agent`, `init`, `key ...`, `group ...`, `config ...`."""
    parser = command(commands, "up", "agent:up", "start an agent here: makes what is missing, tells what it does, runs until Ctrl-C")
    _agent(parser)

    parser = command(commands, "agent", "agent:agent", "the same as a service: makes no key, says nothing but its log")
    _agent(parser)

    parser = command(commands, "init", "identity:init", "make the node key, unless there is one")
    _key(parser)

    of_key = subcommands(commands, "key", "show, export and import the node key")
    parser = command(of_key, "show", "identity:key_show", "which node this is")
    _key(parser)
    parser = command(of_key, "export", "identity:key_export", "write the node key under a password")
    _key(parser)
    file(parser, "--to", "where to write it; never over another file", required=True)
    _password(parser)
    parser = command(of_key, "import", "identity:key_import", "make an exported key this node's")
    _key(parser)
    file(parser, "--from", "the exported key", required=True, dest="exported")
    _password(parser)

    of_group = subcommands(commands, "group", "a fleet's key, and the certificates that name its members")
    parser = command(of_group, "init", "group:group_init", "make the key of a fleet's owner")
    parser.add_argument("file", type=Path, metavar="KEYFILE", help="where to write it; never over another file")
    parser = command(of_group, "sign", "group:group_sign", "name a member: its node belongs to the fleet for so many days")
    parser.add_argument("node", metavar="NODE", help="the node's id, as `nexus-edge key show` there has it")
    file(parser, "--key", "the fleet's key, or an export of it", required=True)
    parser.add_argument("--days", type=positive, metavar="N", help="how long it holds, at most and by default 30")
    file(parser, "--out", "where to write the certificate; one that is there is renewed", required=True)
    _password(parser)
    parser = command(of_group, "show", "group:group_show", "whose key it is, or what a certificate says; exit status 78 if it has ended")
    parser.add_argument("file", type=Path, metavar="FILE", help="a fleet's key, or a certificate")

    of_config = subcommands(commands, "config", "show and check the settings")
    parser = command(of_config, "show", "config:show", "every setting as it is in force")
    settings(parser)
    parser.add_argument("--origin", action="store_true", help="also where each was set: file and line, variable or flag")
    parser = command(of_config, "validate", "config:validate", "check the settings; exit status 78 if one is wrong")
    settings(parser)
    command(of_config, "schema", "config:schema_command", "every setting with type, default and meaning, as a JSON schema")


def _agent(parser: argparse.ArgumentParser) -> None:
    settings(parser)
    parser.add_argument("--name", action=Sets, setting="node.name", metavar="NAME", help="what this node calls itself")
    node_folder(parser, "folder of key, ledger and models")
    parser.add_argument("--mesh", action=Sets, setting="mesh.name", metavar="NAME", help="only nodes of one mesh name work with each other")
    parser.add_argument("--listen", action=Sets, setting="mesh.listen", metavar="HOST:PORT", help="where peers reach this node")
    parser.add_argument(
        "--peer", action=Sets, setting="mesh.peers", metavar="[ID@]HOST:PORT", several=True, help="a peer to dial; repeat for several"
    )
    parser.add_argument(
        "--no-mdns", action=Sets, setting="mesh.mdns", nargs=0, const=False, help="neither announce nor look for neighbours"
    )


def _key(parser: argparse.ArgumentParser) -> None:
    file(parser, "--key", "the node key's file (default: node-key in the state folder)")


def _password(parser: argparse.ArgumentParser) -> None:
    file(parser, "--password-file", "a file whose first line is the password (default: ask on the terminal)")
