"""What this process has of its machine: cores, memory, a user. It loads no torch."""

from __future__ import annotations

import errno
import getpass
import math
import os
import resource
import sys
from pathlib import Path

from stackgan_dist.errors import RankError

_MOST_OPEN_FILES = 2**16
"""More would only make the kernel's tables of a process larger."""


def available_cores() -> set[int]:
    """The CPU cores that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def cores_of_this_rank() -> int:
    """CPU cores for each of the ranks of this machine, at least 1."""
    return max(1, usable_cores() // ranks_of_this_machine())


def ranks_of_this_machine() -> int:
    """How many ranks one launcher has started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def usable_cores() -> int:
    """How many cores this process can keep busy, at least 1.

    They are those that it may run on, but no more than its cgroup's quota of CPU time, which containers and batch
    systems set.
    """
    quota = _quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    cores = len(available_cores())
    return max(1, math.ceil(quota)) if quota < cores else cores


def _quota(own: Path, root: Path) -> float:
    """CPU seconds that a second may take in the cgroup that `own` names below `root`; infinite without a limit.

    The limits of all groups around it count as well. Both versions of the kernel's interface are read.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return math.inf
    limits = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top = root
        elif "cpu" in controllers.split(","):
            top = root / controllers if (root / controllers).is_dir() else root / "cpu"
        else:
            continue
        group = top / path.lstrip("/")
        # In a container the path is often that of the host, and its own group lies at the top.
        for folder in (group, *group.parents):
            limits.append(_limit(folder))
            if folder == top:
                break
    return min(limits)


def _limit(group: Path) -> float:
    try:
        if (group / "cpu.max").exists():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        return math.inf if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def user_name() -> str:
    """What the user of this process is called; a number where the machine has no name for it.

    So it is in containers that run as any uid (OpenShift, `docker run --user`).
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the latter since Python 3.13
        return str(os.getuid())


def raise_open_files_limit() -> None:
    """Let this process, and those that it starts, open as many files as the system allows them to (ulimit -n)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def open_files_limit() -> int:
    """How many files this process may have open at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_OPEN_FILES if soft == resource.RLIM_INFINITY else soft


class TooManyOpenFilesError(RankError):
    """This process, or its machine, may open no more files until some are closed."""


def check_open_files(error: OSError) -> None:
    """Raise a TooManyOpenFilesError that names the limit where `error` says that too many files are open."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise TooManyOpenFilesError(
            f"too many files are open at once ({error.strerror}); this process may open {open_files_limit()}: raise "
            "that with ulimit -n, or for all users in /etc/security/limits.conf"
        ) from error


def peak_memory_bytes() -> int:
    """The most memory that this process has had resident at once."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: Linux lets a child begin with its parent's peak.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
