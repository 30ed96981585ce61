"""The processor's features, from real and faked /proc/cpuinfo files."""

from pathlib import Path

import pytest

from nexus_edge.proofs import _native, cpu

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
flags\t\t: fpu fxsr sse sse2 ht syscall nx pni ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt avx f16c abm avx2 bmi1 bmi2
bugs\t\t: spectre_v1

processor\t: 1
flags\t\t: fpu
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd aes pmull sha1 sha2 crc32 atomics asimdrdm lrcpc asimddp\n"


@pytest.fixture
def cpuinfo(tmp_path: Path) -> Path:
    return tmp_path / "cpuinfo"


def test_flags_are_those_of_the_first_processor(cpuinfo: Path) -> None:
    cpuinfo.write_text(X86)
    flags = cpu.host_flags(cpuinfo)
    assert flags is not None
    assert {"avx2", "abm", "pni"} <= flags
    assert "avx512f" not in flags


def test_rustc_names_are_found_under_linux_names(cpuinfo: Path) -> None:
    cpuinfo.write_text(X86)
    flags = cpu.host_flags(cpuinfo)
    assert flags is not None
    assert cpu.missing(["sse3", "sse4.1", "lzcnt", "cmpxchg16b", "avx2", "x87"], flags) == []
    assert cpu.missing(["avx512f", "avx512vbmi2", "sha", "avx2"], flags) == ["avx512f", "avx512vbmi2", "sha"]


def test_arm_names(cpuinfo: Path) -> None:
    cpuinfo.write_text(ARM)
    flags = cpu.host_flags(cpuinfo)
    assert flags is not None
    assert cpu.missing(["neon", "aes", "lse", "rdm", "dotprod", "rcpc", "crc"], flags) == []
    assert cpu.missing(["sve", "fp16"], flags) == ["fp16", "sve"]


def test_a_feature_nobody_knows_is_missing() -> None:
    assert cpu.missing(["of-the-future"], frozenset({"avx2"})) == ["of-the-future"]


@pytest.mark.parametrize("content", ["", "processor: 0\n", "no colon at all\n"])
def test_a_system_that_does_not_say(cpuinfo: Path, content: str) -> None:
    cpuinfo.write_text(content)
    assert cpu.host_flags(cpuinfo) is None


def test_no_cpuinfo_at_all(tmp_path: Path) -> None:
    assert cpu.host_flags(tmp_path / "absent") is None


def test_this_machine_has_all_that_its_own_build_needs() -> None:
    flags = cpu.host_flags()
    assert flags is not None
    assert cpu.missing(_native.build_features, flags) == []
