"""Build a wheel that runs on every x86-64 processor and is fast on the newer ones.

It holds the native module three times: for the baseline and for the levels x86-64-v3 (AVX2) and x86-64-v4 (AVX-512). The field and NTT
kernels choose their instructions when they are compiled, so one file cannot hold all. `nexus_edge/proofs/native_loader.py` picks one.
On other architectures the wheel holds the baseline only. See docs/adr/0001-native-builds.md.
"""

import argparse
import base64
import hashlib
import platform
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from toolchain import NATIVE, ROOT, VENV, environment

MODULE = "nexus_edge/proofs/_native"
LEVELS = {"x86_64": ("x86-64", "x86-64-v3", "x86-64-v4"), "aarch64": ("generic",)}


def main() -> int:
    """Write the wheel and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the wheel (default: dist)")
    parser.add_argument("--baseline-only", action="store_true", help="leave the faster builds out")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    baseline, *faster = LEVELS[platform.machine()]
    if arguments.baseline_only:
        faster = []
    with tempfile.TemporaryDirectory() as folder:
        wheels = {level: build(level, Path(folder) / level) for level in (baseline, *faster)}
        modules = {f"{MODULE}_{level.replace('-', '_')}.abi3.so": module_in(wheels[level]) for level in faster}
        wheel = out / wheels[baseline].name
        add(wheels[baseline], modules, wheel)
    print(wheel)
    return 0


def build(level: str, out: Path) -> Path:
    """A wheel whose native module is compiled for one level."""
    env = environment() | {"RUSTFLAGS": f"-C target-cpu={level}"}
    options = ("--release", "--locked", "--out", str(out), "--target-dir", str(NATIVE / "target" / "wheel"))
    command = (str(VENV / "bin" / "maturin"), "build", *options)
    subprocess.run(command, cwd=ROOT, env=env, check=True, stdout=sys.stderr)
    (wheel,) = out.glob("*.whl")
    return wheel


def module_in(wheel: Path) -> bytes:
    """The native module of a wheel with one build."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"{MODULE}.abi3.so")


def add(wheel: Path, files: dict[str, bytes], out: Path) -> None:
    """A copy of a wheel with more files, each entered in its RECORD."""
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as target:
        (record,) = (name for name in source.namelist() if name.endswith(".dist-info/RECORD"))
        lines = source.read(record).decode().splitlines()
        for member in source.infolist():
            if member.filename != record:
                target.writestr(member, source.read(member), zipfile.ZIP_DEFLATED)
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = 0o100755 << 16
            target.writestr(member, content, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.insert(-1, f"{name},sha256={digest},{len(content)}")  # RECORD's own line stays last
        target.writestr(zipfile.ZipInfo(record), "\n".join(lines) + "\n", zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    sys.exit(main())
