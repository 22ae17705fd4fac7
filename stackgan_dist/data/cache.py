"""The node-local shard cache: remote shards are fetched once per node, checked, and shared by all its processes.

A file of the cache is named by its sha256, so equal shards of different sets are one file, shards of equal names are
never mixed up, and an object that changed since it was indexed is refused. What a killed process has fetched of a
shard is continued by the next one. Shards on a local file system are read where they lie.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO

from stackgan_dist.data.cache_folder import CacheFolder, Unavailable
from stackgan_dist.data.index import Index, Shard
from stackgan_dist.errors import UserError
from stackgan_dist.machine import check_open_files
from stackgan_dist.storage.durable import sync
from stackgan_dist.storage.folder import Folder, FolderLike
from stackgan_dist.storage.retry import Attempts, Patience, WrongSizeError, describe
from stackgan_dist.storage.stream import ObjectStream

_PROGRESS_BYTES = 2**20
"""So much counts as progress: a store that sends less before every fault is given up."""
_REFUSALS = 3
"""So many times a shard is asked for that is said to be missing or forbidden: gateways err."""
_DIGESTS = 3
"""So many times it is fetched when its digest is wrong, each time another one."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
_WAIT_S = 0.02


class ShardCache:
    """Opens the shards of one data set.

    Args:
        where: the data set's folder.
        index: its index.
        folder: where remote shards are kept on this node.
        limit_bytes: how much may be kept there, fetches under way included.
        patience: with the store.
    """

    def __init__(
        self, where: FolderLike, index: Index, folder: Path, limit_bytes: int, patience: Patience | None = None
    ) -> None:
        self._source = Folder.at(where)
        self._shards = index.shards
        self._folder = CacheFolder(folder, limit_bytes)
        self._patience = patience or Patience()
        self._stream = ObjectStream()
        self._verified: dict[int, tuple[int, ...]] = {}
        """Shard -> what its file was when its content was found right."""
        self.is_local = self._source.path is not None
        """Whether the shards lie on a local file system, where nothing is fetched."""

    def open(self, number: int) -> BinaryIO:
        """Shard `number`, verified, open for reading; fetched first when it is not here.

        Raises:
            UserError: it cannot be fetched, or is not what the index says; names the shard, what was expected
                and what was found.
        """
        shard = self._shards[number]
        if self.is_local:
            return self._open_in_place(number, shard)
        waiting = _Waiting(shard, self._patience)
        while True:
            file = self._guarded(shard, lambda: self._folder.open(shard) or self._bring(shard, urgent=True))
            if file is not None:
                return file
            waiting.go_on(self._folder)

    def fetch_ahead(self, number: int, keep: Collection[int] = ()) -> None:
        """Fetch shard `number` if that can be done without removing shards in use, or those numbered in `keep`.

        Does not wait for another process that is at it. Same errors as `open`.
        """
        shard = self._shards[number]
        if self.is_local or self._folder.path(shard).exists():
            return
        kept = {self._shards[other].sha256 for other in keep}
        file = self._guarded(shard, lambda: self._bring(shard, urgent=False, keep=kept))
        if file is not None:
            file.close()

    def wants_back(self, file: BinaryIO) -> bool:
        """Whether an opened shard was removed from the cache to make room, which closing it will free."""
        return not self.is_local and os.fstat(file.fileno()).st_nlink == 0

    def _bring(self, shard: Shard, *, urgent: bool, keep: Collection[str] = ()) -> BinaryIO | None:
        """Fetch `shard` and open it; None when it has come meanwhile or cannot be fetched now."""
        part = self._folder.place(shard, urgent=urgent, keep=keep)
        if isinstance(part, Unavailable):
            return None
        try:
            if self._fetch(shard, part, urgent=urgent):
                self._folder.finish(shard)
            else:
                self._folder.give_back(shard)
        finally:
            part.close()
        return self._folder.open(shard)

    def _fetch(self, shard: Shard, part: BinaryIO, *, urgent: bool) -> bool:
        """Complete `part` and verify it; False when the disk is full and the shard not urgent."""
        url = self._source.url_of(shard.name)
        found: list[str] = []
        while len(found) < _DIGESTS and len(found) == len(set(found)):
            digest = hashlib.sha256()
            while block := part.read(_PROGRESS_BYTES):  # what a killed fetch left
                digest.update(block)
            if part.tell() > shard.bytes:
                part.truncate(0)
                part.seek(0)
                digest = hashlib.sha256()
            resumed = part.tell() > 0
            if not self._receive(shard, part, digest, urgent=urgent):
                return False
            sync(part.fileno(), self._folder.folder)
            if digest.hexdigest() == shard.sha256:
                return True
            part.truncate(0)
            part.seek(0)
            if not resumed:  # the rest of a killed fetch says nothing about the object
                found.append(digest.hexdigest())
        self._folder.give_back(shard)
        raise UserError(
            f"{url} has sha256 {found[-1][:16]}..., the index says {shard.sha256[:16]}... (fetched "
            f"{len(found)} times): its content was altered or damaged; pack the set again or restore the object"
        )

    def _receive(self, shard: Shard, part: BinaryIO, digest: hashlib._Hash, *, urgent: bool) -> bool:
        """Append what `part` lacks, from where it breaks off whenever it does; False when the disk is full."""
        url = self._source.url_of(shard.name)
        attempts = Attempts(f"read {url}", self._patience)
        at = counted = part.tell()
        while at < shard.bytes:
            at_most = None
            try:
                for piece in self._stream.read(self._source, shard.name, at, shard.bytes):
                    if not self._write(shard, part, piece, urgent=urgent):
                        return False
                    digest.update(piece)
                    at += len(piece)
                    if at - counted >= _PROGRESS_BYTES:
                        counted = at
                        attempts.progress()
                    elif attempts.overdue:
                        break
                fault = f"the store sent {at} of {shard.bytes} bytes"
            except WrongSizeError as error:
                self._folder.give_back(shard)
                raise UserError(
                    f"{url} has {error.found} bytes, the index says {shard.bytes}: it was replaced after it was "
                    "indexed; pack the set again or restore the object"
                ) from error
            except (FileNotFoundError, PermissionError) as error:
                fault, at_most = describe(error), _REFUSALS
            except _CannotKeepError:
                raise
            except Exception as error:  # every store has its own family of transient errors
                fault = f"{describe(error)} (after {at} of {shard.bytes} bytes)"
            if at < shard.bytes:
                attempts.failed(fault, at_most=at_most)
        return True

    def _write(self, shard: Shard, part: BinaryIO, piece: bytes, *, urgent: bool) -> bool:
        rest = memoryview(piece)
        begin = time.monotonic()
        while rest:
            try:
                rest = rest[part.write(rest) :]
            except OSError as error:
                if error.errno not in _FULL:
                    raise _CannotKeepError(error) from error
                if self._folder.shrink(shard, urgent=urgent):
                    continue
                if not urgent:
                    return False
                # Other processes have to close what was removed before its room is free.
                if time.monotonic() - begin > self._patience.total_s / 4:
                    raise _CannotKeepError(error) from error
                time.sleep(_WAIT_S)
        return True

    def _guarded(self, shard: Shard, work: Callable[[], BinaryIO | None]) -> BinaryIO | None:
        try:
            return work()
        except (_CannotKeepError, OSError) as fault:
            error = fault.error if isinstance(fault, _CannotKeepError) else fault
            check_open_files(error)
            advice = (
                "make room there, or give another folder (--data.cache) or a smaller bound (--data.cache-gb)"
                if error.errno in _FULL
                else "give a folder that you may write to (--data.cache)"
            )
            raise UserError(
                f"cannot keep {shard.name} ({shard.bytes} bytes) in the cache {self._folder.folder}: "
                f"{error.strerror or error}; {advice}"
            ) from fault

    def _open_in_place(self, number: int, shard: Shard) -> BinaryIO:
        url = self._source.url_of(shard.name)
        folder = self._source.path
        assert folder is not None
        try:
            file = (folder / shard.name).open("rb")
        except OSError as error:
            check_open_files(error)
            raise UserError(f"cannot open {url}: {error.strerror}; the index lists it, pack the set again") from error
        found = os.fstat(file.fileno())
        if found.st_size != shard.bytes:
            raise UserError(f"{url} has {found.st_size} bytes, the index says {shard.bytes}; pack the set again")
        # A file that was put in its place, or written to, is looked at again; tars of equal size are common.
        version = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        if self._verified.get(number) != version:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != shard.sha256:
                raise UserError(
                    f"{url} has sha256 {digest[:16]}..., the index says {shard.sha256[:16]}...: its content was "
                    "altered or damaged; pack the set again or restore the file"
                )
            file.seek(0)
            self._verified[number] = version
        return file


class _CannotKeepError(Exception):
    """A fault of this node's disk, as opposed to one of the store's, which is an OSError too."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class _Waiting:
    """Waiting for a shard that another process fetches, for as long as the cache changes."""

    def __init__(self, shard: Shard, patience: Patience) -> None:
        self._shard = shard
        # The other process is as patient, and pauses between its attempts.
        self._bound_s = 2 * patience.total_s
        self._seen: object = None
        self._since = time.monotonic()

    def go_on(self, folder: CacheFolder) -> None:
        """Wait a moment; UserError when nothing has changed for too long."""
        seen = folder.progress()
        if seen != self._seen:
            self._seen, self._since = seen, time.monotonic()
        elif time.monotonic() - self._since > self._bound_s:
            raise UserError(
                f"waited {self._bound_s:.0f} s for {self._shard.name}, which another process is fetching into "
                f"{folder.folder}, and nothing moved there; end that process, or give another folder (--data.cache)"
            )
        time.sleep(_WAIT_S)


_FETCHES_AT_ONCE = 2
"""By one process: a store answers each request after a while, and often with less than the line can carry."""


class Prefetcher:
    """Fetches shards in the background, in the order of need; faults are left to the reader that meets them."""

    def __init__(self, cache: ShardCache) -> None:
        self._cache = cache
        self._wanted: list[int] = []
        self._changed = threading.Condition()
        for _ in range(_FETCHES_AT_ONCE):
            threading.Thread(target=self._run, name="shard-prefetch", daemon=True).start()

    def want(self, shards: list[int]) -> None:
        """From now on fetch these, the first one first."""
        with self._changed:
            self._wanted = shards
            self._changed.notify_all()

    def _run(self) -> None:
        wanted: list[int] = []
        while True:
            with self._changed:
                while self._wanted is wanted:
                    self._changed.wait()
                wanted = self._wanted
            for number in wanted:
                if wanted is not self._wanted:  # the run has moved on
                    break
                try:
                    self._cache.fetch_ahead(number, keep=wanted)
                except (UserError, OSError):
                    break
