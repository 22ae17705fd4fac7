"""The node-local shard cache: remote shards are fetched once per node, checked, and shared by all its processes.

A file of the cache is named by its sha256, so equal shards of different sets are one file, and shards of equal names
are never mixed up. Processes agree by file locks alone: whoever holds a shard's lock fetches it, the others wait for
it or go on. Shards on a local file system are read where they lie.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from stackgan_dist.data.index import Index, Shard
from stackgan_dist.data.storage import join, local_path, open_filesystem
from stackgan_dist.errors import UserError

_BLOCK_BYTES = 16 * 2**20
_ATTEMPTS = 8
_LONGEST_PAUSE_S = 20.0


class ShardCache:
    """Opens the shards of one data set.

    Args:
        url: the data set's folder.
        index: its index.
        folder: where remote shards are kept on this node; made when needed.
        limit_bytes: how much may be kept there; the oldest (by last use) go first.
    """

    def __init__(self, url: str, index: Index, folder: Path, limit_bytes: int) -> None:
        self._url = url
        self._shards = index.shards
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._verified: set[int] = set()
        self._is_local = local_path(url) is not None

    def open(self, number: int) -> BinaryIO:
        """Shard `number`, verified, open for reading; fetched first when it is not here.

        Raises:
            UserError: it cannot be fetched, or is not what the index says; names the shard, what was expected
                and what was found.
        """
        shard = self._shards[number]
        if self._is_local:
            return self._open_in_place(number, shard)
        while True:
            try:
                # Opening and touching keeps it: what is removed later stays readable through the open file.
                file = self._path(shard).open("rb")
            except (FileNotFoundError, NotADirectoryError):
                self._bring(shard, wait=True)
            else:
                os.utime(file.fileno())
                return file

    def fetch_ahead(self, number: int) -> None:
        """Fetch shard `number` unless it is here or another process is at it. Same errors as `open`."""
        shard = self._shards[number]
        if self._is_local or self._path(shard).exists():
            return
        self._bring(shard, wait=False)

    def _bring(self, shard: Shard, *, wait: bool) -> None:
        """Fetch `shard` unless it has come meanwhile or, without `wait`, another process is at it."""
        try:
            with self._lock(shard, wait=wait) as mine:
                if mine and not self._path(shard).exists():
                    self._fetch(shard)
        except OSError as error:
            raise UserError(
                f"cannot keep {shard.name} ({shard.bytes} bytes) in the cache {self._folder}: {error.strerror}; make "
                "room there, or give another folder (--data.cache) or a smaller bound (--data.cache-gb)"
            ) from error

    def _open_in_place(self, number: int, shard: Shard) -> BinaryIO:
        url = join(self._url, shard.name)
        path = local_path(url)
        assert path is not None
        try:
            file = path.open("rb")
        except OSError as error:
            raise UserError(f"cannot open {url}: {error.strerror}; the index lists it, pack the set again") from error
        found = os.fstat(file.fileno()).st_size
        if found != shard.bytes:
            raise UserError(f"{url} has {found} bytes, the index says {shard.bytes}; pack the set again")
        if number not in self._verified:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            _check_digest(url, shard, digest)
            file.seek(0)
            self._verified.add(number)
        return file

    def _path(self, shard: Shard) -> Path:
        return self._folder / f"{shard.sha256}.tar"

    @contextmanager
    def _lock(self, shard: Shard, *, wait: bool) -> Iterator[bool]:
        self._folder.mkdir(parents=True, exist_ok=True)
        # The lock files stay: removing one that another process is about to lock would let two in.
        with (self._folder / f"{shard.sha256}.lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def _fetch(self, shard: Shard) -> None:
        url = join(self._url, shard.name)
        self._make_room(shard.bytes)
        part = self._path(shard).with_suffix(".part")
        digest = hashlib.sha256()
        with part.open("wb") as file:
            for begin in range(0, shard.bytes, _BLOCK_BYTES):
                block = _read_range(url, begin, min(begin + _BLOCK_BYTES, shard.bytes))
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        try:
            _check_digest(url, shard, digest.hexdigest())
        except UserError:
            part.unlink()
            raise
        part.replace(self._path(shard))

    def _make_room(self, wanted_bytes: int) -> None:
        kept = []
        for path in self._folder.glob("*.tar"):
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process was quicker
                continue
            kept.append((stat.st_mtime_ns, stat.st_size, path))
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total + wanted_bytes <= self._limit_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def _check_digest(url: str, shard: Shard, found: str) -> None:
    if found != shard.sha256:
        raise UserError(
            f"{url} has sha256 {found[:16]}..., the index says {shard.sha256[:16]}...: its content was altered or "
            "damaged; pack the set again or restore the object"
        )


def _read_range(url: str, begin: int, end: int) -> bytes:
    """Bytes [begin, end) of `url`; tries again with growing, jittered pauses, from where it broke off."""
    fs, path = open_filesystem(url)
    data = b""
    fault: str = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(min(_LONGEST_PAUSE_S, 0.2 * 2**attempt) * random.uniform(0.5, 1.0))
        try:
            data += fs.cat_file(path, start=begin + len(data), end=end)
        except (FileNotFoundError, PermissionError) as error:
            raise UserError(f"cannot read {url}: {error or type(error).__name__}; is the set complete?") from error
        except Exception as error:  # every store has its own family of transient errors
            fault = f"{type(error).__name__}: {error}"
        if len(data) == end - begin:
            return data
        fault = fault or f"the store sent {len(data)} of {end - begin} bytes"
    raise UserError(
        f"cannot read bytes {begin} to {end} of {url} after {_ATTEMPTS} attempts; the last fault was: {fault}. "
        "Check the object and the network, then start again: the run resumes at its last checkpoint"
    )
