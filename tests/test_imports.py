"""Every module can be the first one that an interpreter imports, and light ones stay light."""

import pkgutil
import subprocess
import sys

import pytest

import nexus_edge

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(nexus_edge.__path__, "nexus_edge.")
    if not module.name.endswith((".__main__", "._native")) and "._native_" not in module.name
)

# Each module is imported in a child of its own, forked from an interpreter that has imported nothing of ours.
PROGRAM = """
import os, sys
import flatbuffers, numpy, tflite
failed = []
for name in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            __import__(name)
        except BaseException as error:
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        failed.append(name)
sys.exit(len(failed))
"""


def test_every_module_can_be_imported_first() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, *MODULES], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == ""
    assert done.returncode == 0
    assert len(MODULES) > 20


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("nexus_edge.cli", {"numpy", "rich", "tflite", "nexus_edge.proofs", "nexus_edge.commands"}),
        ("nexus_edge.errors", {"numpy", "nexus_edge.proofs"}),
        ("nexus_edge.commands", {"numpy", "nexus_edge.proofs", "nexus_edge.demo"}),
        ("nexus_edge.commands.proving", {"rich", "nexus_edge.demo", "aiohttp", "pydantic", "structlog", "zeroconf"}),
        ("nexus_edge.api.client", {"rich", "numpy", "nexus_edge.proofs", "zeroconf"}),
    ],
)
def test_light_modules_stay_light(module: str, heavy: set[str]) -> None:
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert heavy & set(done.stdout.split()) == set()
