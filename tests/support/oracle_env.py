"""Makes the virtual environments in which other runtimes answer what a model computes.

`python tests/support/oracle_env.py` makes them all; tests make them when they need them.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_LITERT = ("ai-edge-litert==2.3.0",)
REQUIREMENTS = {
    "tflite-2.14": ("tflite-runtime==2.14.0", "numpy<2"),
    "litert-2.3-ref": _LITERT,
    "litert-2.3": _LITERT,
}
"""Packages of each environment: tflite-runtime's wheel breaks beside numpy 2. The kernels of `litert-2.3` are the optimised ones."""


class Unavailable(Exception):
    """The runtime has no wheel for this Python or machine, or cannot be downloaded."""


def ensure(semantics: str) -> Path:
    """The Python of the environment, made and checked if need be."""
    folder = ROOT / (".venv-" + semantics.removesuffix("-ref").replace(".", "").replace("-", ""))
    python, stamp = folder / "bin" / "python", folder / "complete"
    wanted = " ".join((*REQUIREMENTS[semantics], sys.version))
    if not (stamp.exists() and stamp.read_text() == wanted):
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:", *REQUIREMENTS[semantics])
        stamp.write_text(wanted)
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise Unavailable((done.stderr or done.stdout).strip())


if __name__ == "__main__":
    for name in REQUIREMENTS:
        print(name, ensure(name))
