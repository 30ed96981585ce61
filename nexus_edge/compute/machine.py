"""What this machine has: processors, and the memory that is really left for work."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nexus_edge.types import Bytes

CORES_PER_DEVICE: Final = 8
"""One proof gains little from more: its short steps wait for each other. A larger machine makes several at once."""

PROC: Final = Path("/proc")
CGROUPS: Final = Path("/sys/fs/cgroup")
_UNLIMITED: Final = 1 << 62  # version 1 writes "no limit" as the largest number of whole pages


@dataclass(frozen=True)
class Device:
    """Something that jobs run on, one at a time."""

    id: str
    kind: str
    name: str
    cores: int
    memory: Bytes
    """Its own memory, or the machine's if it has none of its own; shared by all devices of one kind."""


def devices(proc: Path = PROC) -> list[Device]:
    """The devices of this machine: its processor, in parts of at most `CORES_PER_DEVICE` cores."""
    cores = usable_cores()
    parts = -(-cores // CORES_PER_DEVICE)
    name, memory = cpu_name(proc), memory_total(proc)
    return [Device(f"cpu{part}", "cpu", name, cores // parts + (part < cores % parts), memory) for part in range(parts)]


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def cpu_name(proc: Path = PROC) -> str:
    """The processor's name for people."""
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", _text(proc / "cpuinfo"), re.MULTILINE)
    return " ".join(found[1].split())[:64] if found else os.uname().machine


def memory_total(proc: Path = PROC) -> Bytes:
    """Physical memory."""
    return _meminfo(proc, "MemTotal")


def memory_available(proc: Path = PROC, cgroups: Path = CGROUPS) -> Bytes:
    """What more could be used without swapping or being killed.

    The kernel's estimate for the machine, or what the control groups of this process leave if that is less. File pages that a group can drop at
    once do not count as used.
    """
    return Bytes(max(0, min([_meminfo(proc, "MemAvailable"), *_groups(proc, cgroups)])))


def _groups(proc: Path, cgroups: Path) -> list[int]:
    """Limit less use of every control group that holds this process, of either version."""
    left = []
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = cgroups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            left += _left(folder, *names)
    return left


def _left(folder: Path, limit: str, usage: str, droppable: str) -> list[int]:
    most, used = _text(folder / limit).strip(), _text(folder / usage).strip()
    if not most.isdecimal() or not used.isdecimal() or int(most) >= _UNLIMITED:
        return []
    found = re.search(rf"^{droppable} (\d+)$", _text(folder / "memory.stat"), re.MULTILINE)
    return [int(most) - int(used) + (int(found[1]) if found else 0)]


def _meminfo(proc: Path, name: str) -> Bytes:
    found = re.search(rf"^{name}:\s+(\d+) kB$", _text(proc / "meminfo"), re.MULTILINE)
    return Bytes(1024 * int(found[1]) if found else os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _text(path: Path) -> str:
    """The content of a kernel's file, empty if there is none: not every system has every file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
