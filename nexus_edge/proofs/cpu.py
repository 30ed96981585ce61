"""What this processor can do, by the names that rustc uses for CPU features."""

from collections.abc import Iterable
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

# Linux has names of its own for some features; all others are rustc's with `.` and `-` as `_`.
_LINUX_NAMES = {
    "x87": "fpu",
    "sse3": "pni",
    "cmpxchg16b": "cx16",
    "lahfsahf": "lahf_lm",
    "lzcnt": "abm",
    "sha": "sha_ni",
    "avxifma": "avx_ifma",
    "avxvnni": "avx_vnni",
    "avxvnniint8": "avx_vnni_int8",
    "avxvnniint16": "avx_vnni_int16",
    "avxneconvert": "avx_ne_convert",
    "avx512bf16": "avx512_bf16",
    "avx512bitalg": "avx512_bitalg",
    "avx512fp16": "avx512_fp16",
    "avx512vbmi2": "avx512_vbmi2",
    "avx512vnni": "avx512_vnni",
    "avx512vp2intersect": "avx512_vp2intersect",
    "avx512vpopcntdq": "avx512_vpopcntdq",
    # AArch64
    "neon": "asimd",
    "lse": "atomics",
    "lse2": "uscat",
    "rdm": "asimdrdm",
    "fp16": "asimdhp",
    "fhm": "asimdfhm",
    "dotprod": "asimddp",
    "crc": "crc32",
    "rcpc": "lrcpc",
    "rcpc2": "ilrcpc",
    "dpb": "dcpop",
    "dpb2": "dcpodp",
    "jsconv": "jscvt",
    "frintts": "frint",
    "sve2-aes": "sveaes",
    "sve2-bitperm": "svebitperm",
    "sve2-sha3": "svesha3",
    "sve2-sm4": "svesm4",
}
# Kernel and debugging features that no compiled code of a program depends on, and that Linux does not list.
_INVISIBLE = frozenset({"lor", "pan", "ras", "spe", "vh", "pmuv3", "bti", "mte", "paca", "pacg"})


def host_flags(cpuinfo: Path = CPUINFO) -> frozenset[str] | None:
    """The kernel's names for what the first processor can do, or None where the system does not say.

    Linux gives every processor the same flags on x86, and the common ones on Arm.
    """
    try:
        with cpuinfo.open(encoding="ascii", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() in {"flags", "Features"}:
                    return frozenset(value.split())
    except OSError:
        return None
    return None


def missing(features: Iterable[str], flags: frozenset[str]) -> list[str]:
    """Those `features` (rustc's names) that a processor with these kernel `flags` lacks. A feature nobody knows counts as lacking."""
    return sorted(feature for feature in features if feature not in _INVISIBLE and _linux_name(feature) not in flags)


def _linux_name(feature: str) -> str:
    return _LINUX_NAMES.get(feature, feature.replace(".", "_").replace("-", "_"))
