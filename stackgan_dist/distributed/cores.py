"""How much of a machine is this rank's."""

from __future__ import annotations

import os


def cores_of_this_rank() -> int:
    """CPU cores for each of the ranks of this machine, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
