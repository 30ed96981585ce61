"""The setup skips what is done, and never what is not."""

import json
import re
import subprocess
from pathlib import Path

import pytest

import setup
import toolchain
from nexus_edge.proofs import cpu


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A setup that is complete, elsewhere; returns its stamp."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "nexus-edge").touch()
    (tmp_path / "_native.abi3.so").write_bytes(b"12345")
    stamp = tmp_path / "stamp.json"
    stamp.write_text(json.dumps({"digest": "d", "dev": True, "module": "_native.abi3.so", "size": 5}))
    monkeypatch.setattr(setup, "STAMP", stamp)
    monkeypatch.setattr(setup, "VENV", tmp_path)
    monkeypatch.setattr(setup, "MODULES", tmp_path)
    return stamp


@pytest.mark.usefixtures("finished")
def test_a_finished_setup_is_not_repeated() -> None:
    assert setup.done("d", dev=True)
    assert setup.done("d", dev=False)


@pytest.mark.usefixtures("finished")
def test_other_sources_are_built() -> None:
    assert not setup.done("e", dev=True)


def test_tools_that_were_not_installed_are(finished: Path) -> None:
    finished.write_text(finished.read_text().replace("true", "false"))
    assert setup.done("d", dev=False)
    assert not setup.done("d", dev=True)


@pytest.mark.parametrize("lost", ["_native.abi3.so", "bin/nexus-edge", "stamp.json"])
def test_what_was_removed_is_made_again(finished: Path, lost: str) -> None:
    (finished.parent / lost).unlink()
    assert not setup.done("d", dev=True)


def test_a_module_cut_short_is_made_again(finished: Path) -> None:
    (finished.parent / "_native.abi3.so").write_bytes(b"1234")
    assert not setup.done("d", dev=True)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", "null", '{"digest": "d"}'])
def test_a_damaged_stamp_is_no_stamp(finished: Path, content: str) -> None:
    finished.write_text(content)
    assert not setup.done("d", dev=False)


def test_an_environment_of_another_python_is_made_anew(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "VENV_PYTHON", finished.parent / "absent")
    assert not setup.done("d", dev=True)


def test_everything_that_is_built_is_in_the_digest() -> None:
    env = toolchain.environment()
    before = toolchain.build_digest(env)
    assert toolchain.build_digest(env) == before
    assert toolchain.build_digest(env | {"RUSTFLAGS": "-C target-cpu=x86-64"}) != before
    names = {str(file.relative_to(toolchain.NATIVE)) for file in toolchain.sources()}
    assert {"Cargo.toml", "Cargo.lock", "core/src/lib.rs", "py/src/lib.rs", "py/build.rs"} <= names
    assert not any(name.startswith("target") for name in names)


def test_a_missing_compiler_is_named(tmp_path: Path) -> None:
    with pytest.raises(toolchain.Missing, match=r"cargo .* is not installed"):
        toolchain.require({"PATH": str(tmp_path)})


def test_an_old_compiler_is_named(tmp_path: Path) -> None:
    for name, says in (("cargo", ""), ("cc", ""), ("rustc", "rustc 1.63.0 (abc 2022-08-11)")):
        (tmp_path / name).write_text(f"#!/bin/sh\necho '{says}'\n")
        (tmp_path / name).chmod(0o755)
    with pytest.raises(toolchain.Missing, match=r"or later is needed, found 1\.63"):
        toolchain.require({"PATH": str(tmp_path)})


def test_a_missing_linker_is_named(tmp_path: Path) -> None:
    for name in ("cargo", "rustc"):
        (tmp_path / name).touch(0o755)
    with pytest.raises(toolchain.Missing, match=r"linker \(cc\) is not installed"):
        toolchain.require({"PATH": str(tmp_path)})


@pytest.mark.skipif(not cpu.CPUINFO.exists(), reason="this system does not say what its processors can do")
def test_nothing_is_compiled_in_that_the_kernel_says_is_missing(tmp_path: Path) -> None:
    env = toolchain.environment()
    flags = cpu.host_flags()
    assert flags is not None
    known = sorted(flags & {"sse4_2", "avx", "avx2", "asimd", "crc32"})
    assert known
    (tmp_path / "cpuinfo").write_text(f"flags : {' '.join(sorted(flags - {known[-1]}))}\n")
    lacking = toolchain.native_flags(env, tmp_path / "cpuinfo")
    features = compiled(lacking, env)
    assert cpu.missing(features, flags - {known[-1]}) == []
    assert len(features) > 3
    assert cpu.missing(compiled(toolchain.native_flags(env), env), flags) == []


def compiled(flags: str, env: dict[str, str]) -> list[str]:
    """The features that code compiled with these flags may use."""
    told = subprocess.run(["rustc", "--print", "cfg", *flags.split()], env=env, check=True, capture_output=True, text=True).stdout
    return re.findall(r'target_feature="(.+)"', told)
