"""Make `.venv/` with nexus-edge and its native module, built for this CPU; does nothing when nothing changed.

`--dev` also installs what `./test` needs. Standard library only.
"""

import argparse
import json
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

from toolchain import ROOT, VENV, VENV_PYTHON, Missing, build_digest, environment, require

STAMP = VENV / "nexus-edge-setup.json"
MODULES = ROOT / "nexus_edge" / "proofs"


def main() -> int:
    """Install what is missing; 0 if everything is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dev", action="store_true", help="also the tools and oracles of ./test")
    arguments = parser.parse_args()
    try:
        setup(dev=arguments.dev)
    except Missing as missing:
        print(f"nexus-edge cannot be built here: {missing}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as failed:
        print(f"nexus-edge could not be built: `{' '.join(map(str, failed.cmd))}` ended with status {failed.returncode}", file=sys.stderr)
        return 1
    return 0


def setup(*, dev: bool) -> None:
    """Create the environment, install, build. The stamp is written last, and removed before anything is touched."""
    env = environment()
    require(env)
    digest = build_digest(env)
    if done(digest, dev=dev):
        return
    STAMP.unlink(missing_ok=True)
    started = time.monotonic()
    if not usable(VENV_PYTHON):
        say("making .venv")
        make_venv()
    say(
        "installing "
        + ("the tools of ./test and " if dev else "")
        + "nexus-edge, building its native module for this CPU (minutes the first time)"
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pip: list[str | Path] = [VENV_PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    call([*pip, *project["build-system"]["requires"]], env)
    extras = ["--extras", "dev"] if dev else []
    call([VENV / "bin" / "maturin", "develop", "--release", *extras], env)
    module = built_module()
    STAMP.write_text(json.dumps({"digest": digest, "dev": dev, "module": module.name, "size": module.stat().st_size}))
    say(f"installed in {time.monotonic() - started:.0f} s")


def done(digest: str, *, dev: bool) -> bool:
    """Whether the last setup finished, with these sources and tools, and what it made is still there."""
    try:
        stamp = json.loads(STAMP.read_text())
        module = MODULES / stamp["module"]
        return (
            stamp["digest"] == digest
            and (stamp["dev"] or not dev)
            and module.stat().st_size == stamp["size"]
            and (VENV / "bin" / "nexus-edge").is_file()
            and usable(VENV_PYTHON)
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def usable(python: Path) -> bool:
    """Whether the environment's interpreter starts and is the version that runs this."""
    if not python.exists():
        return False
    show = subprocess.run([python, "-c", "import pip, sys; print(sys.version)"], capture_output=True, text=True, check=False)
    return show.returncode == 0 and show.stdout.strip() == sys.version


def make_venv() -> None:
    """A fresh virtual environment with pip."""
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        if re.search("ensurepip|No module named venv", made.stdout + made.stderr):
            raise Missing(f"Python's venv module is incomplete. On Debian: apt install {package}")
        raise Missing(f"python3 -m venv failed: {(made.stderr or made.stdout).strip()}")


def built_module() -> Path:
    """The native module of this build; builds of other wheels do not belong in a source tree."""
    modules = sorted(MODULES.glob("_native*.so")) + sorted(MODULES.glob("_native*.pyd"))
    if len(modules) != 1:
        raise Missing(f"one native module was expected in {MODULES.relative_to(ROOT)}, found {[module.name for module in modules]}")
    return modules[0]


def call(command: Sequence[str | Path], env: dict[str, str]) -> None:
    """Run a step; its output is narration."""
    subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=sys.stderr)


def say(text: str) -> None:
    """Narration goes to standard error: standard output belongs to the program."""
    print(f"setup: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
