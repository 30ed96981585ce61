"""Every check of the repository, in order of cost. All run, whatever fails; the last line counts them.

`scripts/check.py` runs all, `scripts/check.py ruff pytest` the named ones. `./test` installs the tools first.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass

from toolchain import NATIVE, ROOT, VENV, VENV_PYTHON, environment


@dataclass(frozen=True)
class Check:
    """One command that must end with status 0."""

    name: str
    command: tuple[str, ...]
    in_native: bool = False


def tool(name: str) -> str:
    """A console script of the environment."""
    return str(VENV / "bin" / name)


PYTHON = str(VENV_PYTHON)
CHECKS = (
    Check("ruff", (tool("ruff"), "check", "--quiet", ".")),
    Check("format", (tool("ruff"), "format", "--check", "--quiet", ".")),
    Check("imports", (tool("lint-imports"), "--no-cache")),
    Check("mypy", (tool("mypy"),)),
    Check("stubtest", (PYTHON, "-m", "mypy.stubtest", "nexus_edge.proofs._native")),
    Check("rustfmt", ("cargo", "fmt", "--all", "--check"), in_native=True),
    Check("clippy", ("cargo", "clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"), in_native=True),
    Check("pytest", (PYTHON, "-m", "pytest", "-q")),
    # The binding has no Rust tests: it is tested from Python, and linking it needs an interpreter.
    Check("cargo-test", ("cargo", "test", "-p", "nexus-edge-core", "--locked", "--quiet"), in_native=True),
)


def main() -> int:
    """Run the checks; the number that failed decides the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="checks to run (default: all)")
    parser.add_argument("--list", action="store_true", help="name the checks")
    arguments = parser.parse_args()
    names = [check.name for check in CHECKS]
    if arguments.list:
        print("\n".join(names))
        return 0
    if unknown := set(arguments.names) - set(names):
        parser.error(f"no such check: {', '.join(sorted(unknown))} (there are: {', '.join(names)})")
    failed: list[str] = []
    chosen = [check for check in CHECKS if not arguments.names or check.name in arguments.names]
    for check in chosen:
        print(f"== {check.name}", flush=True)
        started = time.monotonic()
        passed = subprocess.run(check.command, cwd=NATIVE if check.in_native else ROOT, env=environment(), check=False).returncode == 0
        print(f"== {check.name} {'passed' if passed else 'FAILED'} in {time.monotonic() - started:.1f} s", flush=True)
        if not passed:
            failed.append(check.name)
    if failed:
        print(f"failed: {', '.join(failed)} (again: ./test {' '.join(failed)})")
    print(f"checks: {len(chosen) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
