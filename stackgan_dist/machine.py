"""What this process has of its machine: cores, and memory. It loads no torch."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path


def available_cores() -> set[int]:
    """The CPU cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def cores_of_this_rank() -> int:
    """CPU cores for each of the ranks of this machine, at least 1."""
    return max(1, len(available_cores()) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def peak_memory_bytes() -> int:
    """The most memory that this process has had resident at once."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: Linux lets a child begin with its parent's peak.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
