"""Which build of the native module is loaded, and that an unfit one never is."""

import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import nexus_edge.proofs
from nexus_edge.errors import NativeModuleMissing, UnsupportedCpu
from nexus_edge.proofs import _native, native_loader
from nexus_edge.proofs.native_loader import Build, choose, features_of, find

BASELINE = Build(Path("_native.abi3.so"), frozenset({"sse2"}))
V3 = Build(Path("_native_x86_64_v3.abi3.so"), frozenset({"sse2", "avx2", "lzcnt"}))
V4 = Build(Path("_native_x86_64_v4.abi3.so"), frozenset({"sse2", "avx2", "lzcnt", "avx512f"}))
WHEEL = [BASELINE, V3, V4]


@pytest.mark.parametrize(
    ("flags", "build"),
    [
        ("sse2", BASELINE),
        ("sse2 avx2", BASELINE),
        ("sse2 avx512f", BASELINE),
        ("sse2 avx2 abm", V3),
        ("sse2 avx2 abm avx512f", V4),
    ],
)
def test_the_most_demanding_build_that_fits(flags: str, build: Build) -> None:
    assert choose(WHEEL, frozenset(flags.split())) is build


def test_the_portable_build_where_the_processor_is_unknown() -> None:
    assert choose(WHEEL, None) is BASELINE


def test_no_build_fits() -> None:
    with pytest.raises(UnsupportedCpu, match="built for one with avx512f"):
        choose([V4], frozenset({"sse2", "avx2", "abm"}))


def test_nothing_is_built(tmp_path: Path) -> None:
    with pytest.raises(NativeModuleMissing, match=r"\./run builds it"):
        choose(find(tmp_path), frozenset())


def test_the_file_states_what_the_module_says() -> None:
    assert _native.__file__ is not None
    assert features_of(Path(_native.__file__)) == frozenset(_native.build_features)


def test_a_file_without_the_statement_is_refused(tmp_path: Path) -> None:
    file = tmp_path / f"_native{EXTENSION_SUFFIXES[0]}"
    file.write_bytes(b"\x7fELF" + bytes(64))
    with pytest.raises(NativeModuleMissing, match="does not state its CPU features"):
        features_of(file)


def test_everyone_gets_the_module_that_the_loader_chose() -> None:
    assert nexus_edge.proofs._native is _native
    assert native_loader.load() is _native


def test_an_unfit_build_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    """Loading this file would fail in another way: it is not a library. The import must stop before that."""
    (tmp_path / f"_native{EXTENSION_SUFFIXES[0]}").write_bytes(b"not a library nexus-edge-cpu-features[sse2,of-the-future]")
    program = f"""
from pathlib import Path
import sys
sys.path.insert(0, {str(Path(nexus_edge.__path__[0]).parent)!r})
import nexus_edge.errors, nexus_edge
import types
package = types.ModuleType("nexus_edge.proofs"); package.__path__ = [{str(Path(native_loader.__file__).parent)!r}]
sys.modules["nexus_edge.proofs"] = package
from nexus_edge.proofs import native_loader
native_loader.__file__ = {str(tmp_path / "native_loader.py")!r}
try:
    native_loader.load()
except nexus_edge.errors.UnsupportedCpu as refused:
    print(refused)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "built for one with of-the-future" in done.stdout
