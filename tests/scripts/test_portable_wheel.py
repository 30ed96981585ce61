"""The wheel that has to run everywhere: built, unpacked, and run as if this processor were the oldest of its architecture."""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import build_wheel
from nexus_edge.data import demo_model
from nexus_edge.proofs import Model, Proof, _native, commit_model, prove, verify
from nexus_edge.proofs.native_loader import features_of
from nexus_edge.types import ProofMode
from toolchain import ROOT

pytestmark = pytest.mark.skipif(platform.machine() not in build_wheel.LEVELS, reason="no wheels for this architecture")

OLDEST = {
    "x86_64": "flags\t\t: fpu tsc cx8 cmov mmx fxsr sse sse2 syscall nx lm\n",
    "aarch64": "Features\t: fp asimd\n",
}
"""What Linux says of the first processors of an architecture."""

CHILD = """
import hashlib, json, sys
import numpy as np
from nexus_edge.data import demo_model
from nexus_edge.proofs import Model, _native, commit_model, prove
x = np.arange(64, dtype=np.int8).reshape(1, 8, 8, 1)
made = {}
for mode in ("plain", "zk"):
    key = commit_model(Model.from_tflite(demo_model()), mode=mode)
    proved = prove(key, [x])
    open(sys.argv[1] + mode, 'wb').write(proved.proof.to_bytes())
    made[mode] = [key.verifying_key.digest.hex(), hashlib.blake2b(proved.proof.body).hexdigest(), proved.outputs[0].tolist()]
print(json.dumps({"file": _native.__file__, "made": made}))
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with the portable build of the native module, and beside it the one that this machine was set up with."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, str(ROOT / "scripts" / "build_wheel.py"), "--baseline-only", "--out", str(folder / "baseline")]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = printed.split()
    assert _native.__file__ is not None
    name = f"{build_wheel.MODULE}_of_this_machine.abi3.so"
    wheel = folder / Path(line).name
    build_wheel.add(Path(line), {name: Path(_native.__file__).read_bytes()}, wheel)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def _run(site: Path, proofs: Path, cpuinfo: Path | None) -> tuple[str, dict[str, list[object]]]:
    """The child's native module, and for each mode its key's digest, its proof's hash and the outputs."""
    command = [sys.executable, "-c", CHILD, f"{proofs}/"]
    if cpuinfo is not None:
        unshare = shutil.which("unshare")
        assert unshare is not None, "unshare (util-linux) shows a process another /proc/cpuinfo"
        namespaces = ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]
        command = [unshare, *namespaces, "sh", "-c", 'mount --bind "$0" /proc/cpuinfo && exec "$@"', str(cpuinfo), *command]
    env = os.environ | {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, cwd=site, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert Path(answer["file"]).is_relative_to(site)
    return Path(answer["file"]).name, answer["made"]


@pytest.mark.timeout(900)  # compiles the native module
def test_the_oldest_processor_runs_the_portable_build_to_the_same_proofs(unpacked: Path, tmp_path: Path) -> None:
    portable = unpacked / f"{build_wheel.MODULE}.abi3.so"
    assert features_of(portable) < features_of(unpacked / f"{build_wheel.MODULE}_of_this_machine.abi3.so")
    oldest = tmp_path / "cpuinfo"
    oldest.write_text(OLDEST[platform.machine()])
    (old, new) = (tmp_path / "old", tmp_path / "new")
    old.mkdir()
    new.mkdir()
    portable_file, made = _run(unpacked, old, oldest)
    fast_file, made_fast = _run(unpacked, new, None)
    assert (portable_file, fast_file) == (portable.name, "_native_of_this_machine.abi3.so")
    assert made["plain"] == made_fast["plain"], "a plain proof is a function of its input"
    assert made["zk"][0] == made_fast["zk"][0]
    x = np.arange(64, dtype=np.int8).reshape(1, 8, 8, 1)
    modes: tuple[ProofMode, ...] = ("plain", "zk")
    for mode in modes:
        key = commit_model(Model.from_tflite(demo_model()), mode=mode)
        verify(key.verifying_key, Proof.from_bytes((old / mode).read_bytes()))
        mine = prove(key, [x])
        assert key.verifying_key.digest.hex() == made[mode][0]
        assert mine.outputs[0].tolist() == made[mode][2]
        same = hashlib.blake2b(mine.proof.body).hexdigest() == made[mode][1]
        assert same == (mode == "plain")
