"""New files and their way to the disk. What a file system cannot do (CIFS, FUSE on buckets, Lustre) is said once.

A fault of the disk (no space, input or output error) is one everywhere and stays an error.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import secrets
import sys
from pathlib import Path
from typing import BinaryIO

from stackgan_dist.distributed.environment import ranks_from_environment

UNKNOWN = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})
"""What a file system answers to a call that it does not know."""
_WHAT = {"sync": "syncing of this (fsync)", "lock": "locks (flock)"}
_LOSS = "a power cut may lose what was written last"
_told: set[str] = set()


def new_file(folder: Path, prefix: str, suffix: str) -> BinaryIO:
    """A file in `folder` under a name of its own, open for writing.

    Its mode is what the user's umask, or the folder's access list, says: that of tempfile's files, 0600, would hide it
    from the group for which it gets its final name.
    """
    return (folder / f"{prefix}{secrets.token_hex(4)}{suffix}").open("xb")


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
