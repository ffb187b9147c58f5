"""What this machine, or the container that this process is in, has."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_CPU_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
_MEMORY_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")


def usable_cpus() -> int:
    """How many CPUs this process may use, by its affinity and its container's quota."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        count = os.cpu_count() or 1
    with suppress(OSError, ValueError):  # no such file, or `max`: no quota
        quota, period = _CPU_QUOTA.read_text().split()
        count = min(count, max(1, round(int(quota) / int(period))))
    return max(1, count)


def memory_megabytes() -> float:
    """How much memory the machine has, or its container may use, in MB (1,048,576 bytes)."""
    size = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # no such file, or `max`: no limit
        size = min(size, int(_MEMORY_LIMIT.read_text()))
    return size / (1 << 20)
