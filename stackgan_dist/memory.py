"""How much memory this process has needed."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_memory_mb() -> float:
    """Of this process; getrusage would also count what its parent held when it forked."""
    status = Path("/proc/self/status")
    if status.exists():
        (peak_kb,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak_kb) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
