"""Locks on files, by which the processes of a machine agree; and what stands in for them where there are none.

flock is released by the kernel when a process ends, however it ends. Where a file system does not know it (Lustre
without -o flock, CIFS, FUSE on buckets), a marker beside the file does its work: only one process can create it, its
owner touches it every few seconds, and one that has been silent for long is removed. Shared locks have no stand-in.
"""

from __future__ import annotations

import errno
import fcntl
import io
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

from stackgan_dist.storage.durable import UNKNOWN, tell_once

_TOUCH_S = 5.0
_SILENT_S = 30.0
"""A marker that was not touched for so long belongs to a process that has ended."""
_WAIT_S = 0.02


class NoLocksError(Exception):
    """The file system does not know locks."""


def try_lock(file: IO[Any], *, shared: bool = False, wait: bool = False) -> bool:
    """flock an open file until it is closed; False when another process has it. NoLocksError where there are none."""
    operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(file, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        _say_without(Path(file.name).parent, error)
        raise NoLocksError from error
    return True


def share(file: BinaryIO) -> None:
    """Lock `file` as in use until it is closed, where there are locks."""
    with suppress(NoLocksError):
        try_lock(file, shared=True, wait=True)


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Be the only process that holds `path` while inside, which should take a moment; waits for the others.

    Another user's file, which may only be read, is held by being read.
    """
    with _open_to_lock(path) as file:
        try:
            try_lock(file, wait=True)
            marker = None
        except NoLocksError:
            while (marker := _mark(path)) is None:
                time.sleep(_WAIT_S)
        try:
            yield
        finally:
            if marker is not None:
                marker.unlink(missing_ok=True)


def open_alone(path: Path) -> BinaryIO | None:
    """The file at `path`, made when needed, for this process alone until it is closed; None when another has it.

    It is open for reading and writing, unbuffered. Raises PermissionError for another user's that nobody has.
    """
    try:
        # In one call: another process may remove the file at any moment.
        file = open(path, "r+b", buffering=0, opener=_create)  # noqa: SIM115 (handed on; Path has no opener)
    except PermissionError:
        if is_held(path):
            return None
        raise
    try:
        if try_lock(file) and os.fstat(file.fileno()).st_nlink:
            return file
    except NoLocksError:
        file.close()
        marker = _mark(path)
        return None if marker is None else _Marked(path, marker)
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _create(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_CREAT, 0o666)


def is_held(path: Path) -> bool:
    """Whether a process holds `path`, alone or shared; a marker cannot tell the latter.

    What may not be read counts as held: nothing is known of it.
    """
    try:
        with path.open("r+b" if os.access(path, os.W_OK) else "rb") as file:  # NFS wants it writable
            return not try_lock(file)
    except FileNotFoundError:
        return False
    except PermissionError:
        return path.exists()
    except NoLocksError:
        return is_fresh(_marker(path))


def has_record_locks(folder: Path) -> bool:
    """Whether fcntl locks parts of files in `folder`, as SQLite does."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            _say_without(folder, error)
            return False
    return True


def _say_without(folder: Path, error: OSError) -> None:
    """Say that the file system of `folder` knows no locks; raises `error` again where that is not what it means."""
    if error.errno not in {*UNKNOWN, errno.ENOLCK}:
        raise error
    tell_once("lock", folder, error, "going on with markers beside the files, which is slower")


class _Marked(io.FileIO):
    """A file whose marker is touched until it is closed, and goes then."""

    def __init__(self, path: Path, marker: Path) -> None:
        super().__init__(path, "r+", opener=_create)
        self._marker, self._process, self._closed = marker, os.getpid(), threading.Event()
        threading.Thread(target=self._touch, name="marker", daemon=True).start()

    def close(self) -> None:
        if not self.closed and os.getpid() == self._process and not self._closed.is_set():  # not in a forked child
            self._closed.set()
            self._marker.unlink(missing_ok=True)
        super().close()

    def _touch(self) -> None:
        while not self._closed.wait(_TOUCH_S):
            with suppress(OSError):
                os.utime(self._marker)


def _open_to_lock(path: Path) -> BinaryIO:
    try:
        return path.open("ab")
    except PermissionError:
        if not os.access(path, os.R_OK):
            raise
        return path.open("rb")


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".held")


def _mark(path: Path) -> Path | None:
    """A marker of this process beside `path`; None while another's is fresh."""
    marker = _marker(path)
    while True:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return marker
        except FileExistsError:
            if is_fresh(marker):
                return None
        # Renamed first: of several that find it stale, one gets it.
        stale = marker.with_name(f"{marker.name}.{uuid.uuid4().hex}")
        with suppress(FileNotFoundError):
            marker.rename(stale)
            stale.unlink()


def is_fresh(marker: Path) -> bool:
    """Whether `marker` is there and was touched lately, by the file system's clock, which need not be ours."""
    probe = marker.with_name(f"{marker.name}.{uuid.uuid4().hex}")
    try:
        touched = marker.stat().st_mtime
        probe.touch()
        return probe.stat().st_mtime - touched < _SILENT_S
    except FileNotFoundError:
        return False
    finally:
        probe.unlink(missing_ok=True)
