"""How much memory this process has used."""

import re
import resource
import sys
from pathlib import Path

from nexus_edge.types import Bytes

_STATUS = Path("/proc/self/status")


def peak_rss() -> Bytes:
    """The most physical memory this process has held.

    Linux's own high-water mark where there is one: `getrusage` includes what the parent held when it forked.
    """
    if _STATUS.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        if found:
            return Bytes(1024 * int(found[1]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Bytes(peak if sys.platform == "darwin" else 1024 * peak)
