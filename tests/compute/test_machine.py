"""What the machine has, read from kernel files as they are on machines of several kinds."""

import os
from pathlib import Path

import pytest

from nexus_edge.compute.machine import CORES_PER_DEVICE, cpu_name, devices, memory_available, memory_total

GIB = 1 << 30


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return root


def machine(root: Path, cgroup: str = "0::/\n") -> Path:
    meminfo = f"MemTotal:       {32 * GIB // 1024} kB\nMemFree:         1024 kB\nMemAvailable:   {8 * GIB // 1024} kB\n"
    return written(root / "proc", {"meminfo": meminfo, "self/cgroup": cgroup, "cpuinfo": "processor\t: 0\nmodel name\t: Fast   CPU\n"})


def test_a_machine_without_limits_has_what_the_kernel_says(tmp_path: Path) -> None:
    proc = machine(tmp_path)
    assert memory_available(proc, tmp_path / "none") == 8 * GIB
    assert memory_total(proc) == 32 * GIB
    assert cpu_name(proc) == "Fast CPU"


GROUPS = [
    ({"memory.max": f"{4 * GIB}\n", "memory.current": f"{GIB}\n"}, {}, 3 * GIB),
    ({"memory.max": f"{4 * GIB}\n", "memory.current": f"{3 * GIB}\n", "memory.stat": f"file {GIB}\ninactive_file {GIB}\n"}, {}, 2 * GIB),
    ({"memory.max": "max\n", "memory.current": f"{GIB}\n"}, {"memory.max": f"{2 * GIB}\n", "memory.current": f"{GIB}\n"}, GIB),
    ({"memory.max": f"{GIB}\n", "memory.current": f"{2 * GIB}\n"}, {}, 0),
    ({"memory.max": "max\n", "memory.current": "1\n"}, {"memory.max": "max\n", "memory.current": "1\n"}, 8 * GIB),
    ({"memory.max": f"{64 * GIB}\n", "memory.current": "0\n"}, {}, 8 * GIB),
]


@pytest.mark.parametrize(("inner", "outer", "expected"), GROUPS)
def test_version_2_groups_count_with_all_above_them(tmp_path: Path, inner: dict[str, str], outer: dict[str, str], expected: int) -> None:
    proc = machine(tmp_path, "0::/system.slice/nexus-edge.service\n")
    groups = tmp_path / "cgroup"
    written(groups / "system.slice", outer)
    written(groups / "system.slice" / "nexus-edge.service", inner)
    assert memory_available(proc, groups) == expected


def test_version_1_groups_count_too(tmp_path: Path) -> None:
    proc = machine(tmp_path, "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n")
    group = {
        "memory.limit_in_bytes": f"{2 * GIB}\n",
        "memory.usage_in_bytes": f"{GIB}\n",
        "memory.stat": f"total_inactive_file {GIB // 2}\n",
    }
    written(tmp_path / "cgroup" / "memory" / "docker" / "abc", group)
    written(tmp_path / "cgroup" / "memory", {"memory.limit_in_bytes": "9223372036854771712\n", "memory.usage_in_bytes": "5\n"})
    assert memory_available(proc, tmp_path / "cgroup") == 3 * GIB // 2


@pytest.mark.parametrize(("cores", "parts"), [(1, [1]), (2, [2]), (8, [8]), (9, [5, 4]), (64, [8] * 8)])
def test_a_large_processor_is_several_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int, parts: list[int]) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    found = devices(machine(tmp_path))
    assert [device.cores for device in found] == parts
    assert max(device.cores for device in found) <= CORES_PER_DEVICE
    assert len({device.id for device in found}) == len(parts)


def test_this_machine_has_a_processor_and_memory() -> None:
    (first, *_) = devices()
    assert first.cores >= 1
    assert first.name
    assert 64 << 20 < memory_available() <= first.memory
