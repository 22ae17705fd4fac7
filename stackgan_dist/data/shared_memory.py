"""Memory that a loader's process hands over to its rank, also where containers have little of it.

Torch puts a tensor into shared memory (/dev/shm, of 64 MB in a container unless it is told otherwise) and sends a
handle through a Unix socket in $TMPDIR, whose path may have 107 bytes. It does so in a thread whose errors end in a
traceback, while the rank waits for ever. Where either cannot be had, the bytes go through the pipe instead: slower, but
they arrive.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stackgan_dist.errors import first_line
from stackgan_dist.machine import ranks_of_this_machine

_LONGEST_PATH = 107
"""Bytes that a Unix socket's path may have."""
_NAMES_BYTES = len("/pymp-xxxxxxxx/listener-xxxxxxxx")
"""What is added to the path of the folder for temporary files."""

_noted = False


def handed_over(piece: Tensor) -> Tensor | NDArray[np.uint8]:
    """`piece` (n,), uint8, in shared memory; or its bytes, to be sent as they are, with a notice the first time."""
    if reason := why_no_socket():
        _note(reason)
        return piece.numpy()
    try:
        shared: Tensor = piece.share_memory_()
    except (OSError, RuntimeError) as error:
        _note(
            f"shared memory failed ({first_line(error)}; {describe_shared_memory()}); give it more (docker: --shm-size "
            "2g), or load in the rank itself (--data.workers 0)"
        )
        return piece.numpy()
    return shared


def why_no_socket() -> str | None:
    """Why processes of this machine cannot reach each other by a socket in $TMPDIR; None where they can."""
    folder = os.fsencode(tempfile.gettempdir())
    if len(folder) + _NAMES_BYTES <= _LONGEST_PATH:
        return None
    return f"$TMPDIR has {len(folder)} characters, too many for a socket in it; give a shorter one"


def received(piece: Tensor | NDArray[np.uint8]) -> Tensor:
    """What `handed_over` returned, in the process that received it."""
    return piece if isinstance(piece, Tensor) else torch.from_numpy(piece)


def describe_shared_memory() -> str:
    """How large /dev/shm is, for messages."""
    try:
        usage = shutil.disk_usage("/dev/shm")
    except OSError as error:
        return f"/dev/shm: {error.strerror}"
    return f"/dev/shm has {usage.total / 2**20:,.0f} MB, {usage.free / 2**20:,.0f} MB of them free"


def note_little_memory(needed_bytes: int) -> None:
    """Say so where the ranks of this machine want more for their batches, `needed_bytes` each, than /dev/shm has."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        return
    needed = needed_bytes * ranks_of_this_machine()
    if needed > free and os.environ.get("LOCAL_RANK", "0") == "0":
        print(
            f"note: loader processes may have {needed / 2**20:,.0f} MB of batches under way, and "
            f"{describe_shared_memory()}: what does not fit goes through a pipe, which is slower. Give it more "
            "(docker: --shm-size 2g), or take fewer with --data.workers",
            file=sys.stderr,
            flush=True,
        )


def _note(reason: str) -> None:
    global _noted
    if not _noted:
        _noted = True
        rank = os.environ.get("RANK", "0")
        print(f"note on rank {rank}: batches go through a pipe, which is slower: {reason}", file=sys.stderr, flush=True)
