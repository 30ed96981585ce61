"""Processes that use one opening file: each prints what left it, and may be killed at any of its system calls.

`python -m tests.support.holders COMMAND FILE ...`. A line on standard output is a proof that left, or a share that someone was given: it is
written only when the library says so. `serve` runs commands from standard input, each in a process of its own.
"""

import fcntl
import json
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nexus_edge import cli
from nexus_edge.errors import FileError, OpeningSpent
from nexus_edge.proofs import HeldOpening, OpeningFile
from tests.proofs.test_opening import PER_PROOF, ROWS, opening

CALLS = ((os, "open"), (os, "fsync"), (os, "replace"), (os, "close"), (os, "unlink"), (fcntl, "flock"), (tempfile, "mkstemp"))
"""Every call by which files are changed or locked; writes happen between `mkstemp` and `fsync`."""


def die_at(call: int) -> None:
    """Let this process be killed just before or just after its n-th call: 2n is before, 2n + 1 after."""
    steps = 0

    def deadly(real: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*arguments: Any, **options: Any) -> Any:
            nonlocal steps
            for after in (False, True):
                if after:
                    result = real(*arguments, **options)
                if steps == call:
                    os.kill(os.getpid(), signal.SIGKILL)
                steps += 1
            return result

        return instead

    for module, name in CALLS:
        setattr(module, name, deadly(getattr(module, name)))


def say(*what: object) -> None:
    """Now it has left."""
    os.write(1, (json.dumps(what) + "\n").encode())


def some_rows(chance: random.Random) -> list[int]:
    """As many as a proof opens."""
    return [chance.randrange(ROWS) for _ in range(PER_PROOF)]


def spend(file: OpeningFile, chance: random.Random) -> bool:
    """One proof."""
    rows = some_rows(chance)
    try:
        file.spend(opening().commitment, rows)
    except OpeningSpent:
        return False
    say("rows", str(file.path), rows)
    return True


def share(file: OpeningFile, path: Path) -> bool:
    """One share for one proof."""
    try:
        given = file.share(1, path)
    except (OpeningSpent, FileError):
        return False
    say("share", str(given.path))
    return True


def save(path: Path) -> None:
    """A new commitment, of which a proof opens rows."""
    rows = tuple(some_rows(random.Random(1)))
    file = HeldOpening(opening(rows=rows)).save(path)
    say("rows", str(file.path), rows)


def run_command(words: list[str]) -> None:
    """A command of `nexus-edge`. What it prints is not read: its files are what leaves it."""
    with Path(os.devnull).open("w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        if status := cli.main(words):
            os._exit(status)


def serve() -> None:
    """A child for each line of input."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            main(*json.loads(line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        say("ended", os.waitstatus_to_exitcode(status))


def wait_for_the_others() -> None:
    """Begin together with other processes."""
    say("ready")
    sys.stdin.read(1)


def main(command: str, path: str, *words: str) -> None:
    """Run one command."""
    file = OpeningFile(path)
    match command, words:
        case "spend", (seed, call):
            die_at(int(call))
            spend(file, random.Random(int(seed)))
        case "share", (to, call):
            die_at(int(call))
            share(file, Path(to))
        case "command", (call, *others):
            die_at(int(call))
            run_command([path, *others])
        case "save", (call,):
            die_at(int(call))
            save(file.path)
        case "spend-all", (seed,):
            wait_for_the_others()
            chance = random.Random(int(seed))
            while spend(file, chance):
                pass
        case "everything", (seed, *alone):
            if alone:
                say("child", os.getpid())
            else:
                wait_for_the_others()
            chance = random.Random(int(seed))
            place = file.path
            mine = [file]
            for turn in range(12):
                one = chance.choice(mine)
                if chance.random() < 0.5:
                    spend(one, chance)
                elif share(one, other := place.with_name(f"{seed}-{turn}.opening")):
                    mine.append(OpeningFile(other))
        case _:
            raise SystemExit(f"no command {command} {words}")
    say("done")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        main(*sys.argv[1:])
