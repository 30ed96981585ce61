"""The compilers of the native module: what is missing, which flags, and a digest of all that a build depends on.

Standard library only: this runs before anything is installed.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "native"
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"


class Missing(Exception):
    """Something that this machine lacks, and how to get it."""


def environment() -> dict[str, str]:
    """Environment of every cargo and maturin call: one set of flags, so that they share compiled artefacts."""
    env = dict(os.environ)
    cargo_home = Path(env.get("CARGO_HOME", Path.home() / ".cargo")) / "bin"
    if shutil.which("cargo") is None and cargo_home.is_dir():
        env["PATH"] = f"{cargo_home}{os.pathsep}{env.get('PATH', '')}"  # rustup without a login shell
    if "RUSTFLAGS" not in env:
        env["RUSTFLAGS"] = native_flags(env)
    env["PYO3_PYTHON"] = str(VENV_PYTHON)
    env["VIRTUAL_ENV"] = str(VENV)
    env.pop("PYTHONHOME", None)
    return env


def native_flags(env: dict[str, str], cpuinfo: Path | None = None) -> str:
    """Compile for this processor, but without what the kernel says it lacks.

    The compiler asks the processor, and the kernel may know better: of some AMD processors it switches `rdseed` off, which is still announced.
    """
    native = "-C target-cpu=native"
    if shutil.which("rustc", path=env.get("PATH")) is None:
        return native  # `require` says so
    cpu = _load(ROOT / "nexus_edge" / "proofs" / "cpu.py")
    flags = cpu.host_flags(cpuinfo or cpu.CPUINFO)
    found = re.findall(r'^target_feature="(.+)"$', _output(["rustc", "--print", "cfg", *native.split()], env), re.MULTILINE)
    lacking = [] if flags is None else cpu.missing(found, flags)
    return f"{native} -C target-feature={','.join(f'-{feature}' for feature in lacking)}" if lacking else native


def _load(file: Path) -> ModuleType:
    """A module of the package, of which nothing can be imported yet."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def require(env: dict[str, str]) -> None:
    """Raise `Missing` unless cargo, a new enough rustc and a linker are there."""
    path = env.get("PATH")
    if shutil.which("cargo", path=path) is None or shutil.which("rustc", path=path) is None:
        raise Missing("cargo (the Rust compiler) is not installed: https://rustup.rs, or your distribution's rustc and cargo packages")
    if shutil.which("cc", path=path) is None:
        raise Missing("a C linker (cc) is not installed. On Debian: apt install gcc libc6-dev")
    needed = rust_version()
    found = re.search(r"rustc (\d+)\.(\d+)", _output(["rustc", "--version"], env))
    if found is None or tuple(map(int, found.groups())) < needed:
        what = ".".join(found.groups()) if found else "unknown"
        raise Missing(f"Rust {needed[0]}.{needed[1]} or later is needed, found {what}: rustup update stable")


def rust_version() -> tuple[int, int]:
    """The oldest Rust that the workspace accepts."""
    manifest = (NATIVE / "Cargo.toml").read_text()
    found = re.search(r'rust-version = "(\d+)\.(\d+)', manifest)
    if found is None:
        raise Missing("native/Cargo.toml names no rust-version")
    return int(found[1]), int(found[2])


def build_digest(env: dict[str, str]) -> str:
    """Hash of everything the built module depends on: sources, settings, compiler, flags, interpreter and this CPU's features."""
    state = hashlib.sha256()
    for part in (
        env["RUSTFLAGS"],
        sys.version,
        _output(["rustc", "-vV"], env),
        _output(["rustc", "--print", "cfg", *env["RUSTFLAGS"].split()], env),
    ):
        state.update(part.encode() + b"\0")
    for file in [ROOT / "pyproject.toml", *sources()]:
        content = file.read_bytes()
        state.update(f"{file.relative_to(ROOT)}\0{len(content)}\0".encode() + content)
    return state.hexdigest()


def sources() -> list[Path]:
    """Every file of the Cargo workspace but its build output."""
    found: list[Path] = []
    for folder, children, files in os.walk(NATIVE):
        children[:] = sorted(child for child in children if child not in {"target", "artifacts", "corpus", "coverage"})
        found += [Path(folder) / file for file in sorted(files)]
    return found


def _output(command: list[str], env: dict[str, str]) -> str:
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
