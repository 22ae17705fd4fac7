"""What not every file system can do (CIFS, FUSE on buckets, Lustre): modes, syncing. Best effort, and said once.

A fault of the disk (no space, input or output error) is one everywhere and stays an error.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import sys
from pathlib import Path

from stackgan_dist.distributed.environment import ranks_from_environment

UNKNOWN = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})
"""What a file system answers to a call that it does not know."""
_WHAT = {"mode": "modes to set (chmod)", "sync": "syncing of this (fsync)", "lock": "locks (flock)"}
_LOSS = "a power cut may lose what was written last"
_told: set[str] = set()


def set_mode(path: str | Path, mode: int) -> None:
    """chmod, where modes are not fixed for the whole file system."""
    try:
        os.chmod(path, mode)
    except OSError as error:
        if error.errno not in {*UNKNOWN, errno.EPERM}:
            raise
        tell_once("mode", Path(path).parent, error, "files keep the mode that it gives them")


def sync(descriptor: int, folder: Path) -> None:
    """fsync what is open as `descriptor`, which is `folder` or lies in it."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise
        tell_once("sync", folder, error, _LOSS)


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut, where a folder can be synced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        if error.errno not in {*UNKNOWN, errno.EACCES, errno.EPERM, errno.EISDIR}:
            raise
        tell_once("sync", folder, error, _LOSS)
        return
    try:
        sync(descriptor, folder)
    finally:
        os.close(descriptor)


def tell_once(what: str, folder: Path, error: OSError, consequence: str) -> None:
    """Say on stderr that `folder` has none of `what`: one line a node, whatever processes meet it, and how often."""
    if what in _told or multiprocessing.parent_process() is not None or ranks_from_environment().local_rank:
        return
    _told.add(what)
    print(
        f"notice: the file system of {folder} has no {_WHAT[what]} ({error.strerror or error}); {consequence}",
        file=sys.stderr,
        flush=True,
    )
