"""The one door to the native module: picks the build that fits this processor, before any of its code runs.

A source build is one file, compiled for the machine that built it. A wheel holds several (`scripts/build_wheel.py`): the portable baseline
and faster ones. Each file states the CPU features it needs in a marked string (`native/py/src/features.rs`); of those that fit, the one
that needs most is the fastest. `nexus_edge.proofs` calls `load` before anything can import `_native`. See docs/adr/0001.
"""

import importlib.machinery
import importlib.util
import mmap
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from nexus_edge.errors import NativeModuleMissing, UnsupportedCpu
from nexus_edge.proofs import cpu

NAME = "nexus_edge.proofs._native"
_MARK = b"nexus-edge-cpu-features["
_LONGEST = 4096  # bytes of feature names


@dataclass(frozen=True)
class Build:
    """One compiled native module and the CPU features it needs."""

    file: Path
    features: frozenset[str]


def load() -> ModuleType:
    """Import the build that fits this processor as `nexus_edge.proofs._native`.

    Raises `UnsupportedCpu` or `NativeModuleMissing`, which are also `ImportError`s.
    """
    if NAME in sys.modules:
        return sys.modules[NAME]
    file = choose(find(Path(__file__).parent), cpu.host_flags()).file
    loader = importlib.machinery.ExtensionFileLoader(NAME, str(file))
    spec = importlib.util.spec_from_file_location(NAME, file, loader=loader)
    if spec is None:
        raise NativeModuleMissing("the native module cannot be loaded", str(file))
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules[NAME] = module
    return module


def find(folder: Path) -> list[Build]:
    """The builds in `folder`."""
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    files = sorted(file for file in folder.glob("_native*") if file.name.endswith(suffixes))
    return [Build(file, features_of(file)) for file in files]


def choose(builds: Sequence[Build], flags: frozenset[str] | None) -> Build:
    """The build that uses most of a processor with these kernel flags; the least demanding one where the flags are unknown."""
    if not builds:
        raise NativeModuleMissing("the native module is not built", "no _native module beside the package", "./run builds it")
    if flags is None:
        return min(builds, key=lambda build: len(build.features))
    fitting = [build for build in builds if not cpu.missing(build.features, flags)]
    if fitting:
        return max(fitting, key=lambda build: len(build.features))
    least = min(builds, key=lambda build: len(cpu.missing(build.features, flags)))
    raise UnsupportedCpu(
        "the native module does not run on this processor",
        f"{least.file.name} was built for one with {', '.join(cpu.missing(least.features, flags))}",
        "build it here: ./run in a clone of the repository",
    )


def features_of(file: Path) -> frozenset[str]:
    """The CPU features that a compiled module states, without running it."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.find(_MARK)
        end = content.find(b"]", start, start + _LONGEST)
        if start < 0 or end < 0:
            raise NativeModuleMissing(
                "the native module is unusable", f"{file.name} does not state its CPU features", "./run builds it anew"
            )
        names = content[start + len(_MARK) : end].decode("ascii", errors="replace")
    return frozenset(name for name in names.split(",") if name)
