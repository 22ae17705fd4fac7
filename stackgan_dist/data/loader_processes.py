"""How the processes of a rank's loader are started, and when they end.

On CPUs they are forks of the rank. A fork of a rank that uses CUDA has its driver's state and NCCL's threads and
registered memory, half alive: there they are forks of a small server, a process of its own that has imported what they
need and nothing else (multiprocessing's "forkserver").
"""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing import resource_tracker
from multiprocessing.forkserver import ensure_running, set_forkserver_preload
from typing import Literal

import torch

from stackgan_dist.data.shared_memory import why_no_socket
from stackgan_dist.interruption import end_with_parent

StartMethod = Literal["fork", "forkserver"]

_SHIELDED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
"""torchrun and Slurm send these to whole process groups; a rank needs its processes until it has stopped by itself."""
_PRELOADED = ["stackgan_dist.data.loader"]


def start_method(device: torch.device) -> StartMethod:
    """How a rank that trains on `device` starts its loader's processes; a notice where it cannot be the better way."""
    if device.type != "cuda":
        return "fork"
    reason = why_no_socket()
    if reason is None:
        return "forkserver"
    rank = os.environ.get("RANK", "0")
    print(
        f"note on rank {rank}: loader processes are forks of a process that uses CUDA: {reason}",
        file=sys.stderr,
        flush=True,
    )
    return "fork"


def start_server() -> None:
    """Start what forks loader processes, which takes seconds, beside what else the rank does at its start."""
    set_forkserver_preload(_PRELOADED)
    resource_tracker.ensure_running()  # the server's start would; but where it does, it unblocks signals
    # Signals that are blocked now stay so in the server and its forks. To this process they come afterwards.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SHIELDED)
    try:
        ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def begin_process(_worker: int) -> None:
    """What each process of a loader does first."""
    for number in _SHIELDED:
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    end_with_parent()  # torch's own watch is over the server, which lives as long as its forks do
