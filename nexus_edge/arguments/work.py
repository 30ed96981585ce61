"""Commands that ask a running agent."""

import argparse
from pathlib import Path
from typing import Any

from nexus_edge.arguments.options import command, file, node_folder, settings


def add_work(commands: Any) -> None:
    """`status`, `jobs`, `peers`, `proofs`, `run`, `answer`, `cancel`, `drain`, `stop`."""
    for name, summary in (
        ("status", "how this node is; exit status 0 only if it is ready or serving"),
        ("jobs", "jobs for peers, by peers and our own"),
        ("peers", "who was found, how far away they are, how we stand with them"),
        ("proofs", "proofs made and received"),
    ):
        _asks(command(commands, name, f"views:{name}", summary))

    parser = command(commands, "run", "run:run", "have a model run and proved in the mesh, and verify the answer here")
    parser.add_argument("model", metavar="MODEL", help="a .tflite file, what `model import` wrote, or the digest of a model that is here")
    parser.add_argument("input", type=Path, metavar="INPUT", help="the input: .npy, or .npz by tensor name. The worker sees it")
    file(parser, "--output", "where to write the answer")
    parser.add_argument("--max-price", metavar="AMOUNT", help="what it may cost, as in '0.05 cr' (default: market.max_price)")
    parser.add_argument("--deadline", metavar="TIME", help="how long it may take, as in '30 s' (default: market.deadline)")
    parser.add_argument("--worker", metavar="PEER", help="the only peer that may have it: id, short id or name")
    _asks(parser)

    parser = command(commands, "answer", "run:answer", "the verified answer of a job that was begun before")
    parser.add_argument("job", metavar="JOB", help="its id, or the beginning of it as `jobs` shows it")
    file(parser, "--output", "where to write it")
    _asks(parser)

    parser = command(commands, "cancel", "run:cancel", "stop a job")
    parser.add_argument("job", metavar="JOB", help="its id, or the beginning of it as `jobs` shows it")
    _asks(parser)

    parser = command(commands, "drain", "run:drain", "take no new work, and finish what is there")
    parser.add_argument("--resume", action="store_true", help="take work again")
    parser.add_argument("--stop", action="store_true", help="stop the agent when it is drained")
    _asks(parser)

    _asks(command(commands, "stop", "run:stop", "stop the agent; open work goes on when it starts again"))


def _asks(parser: argparse.ArgumentParser) -> None:
    settings(parser)
    node_folder(parser, "folder of the agent that is asked, if it was started with one")
    file(parser, "--socket", "the agent's admin socket (default: api.socket)")
