"""The folder of the shard cache: what lies in it, who uses it, and what goes when room is needed.

SHA256.tar          a whole, verified shard; readers hold a shared lock on it
SHA256.BYTES.part   as much as has come of a shard of so many bytes; whoever holds its lock is fetching it
.lock               held for the moment in which room is counted and made

Whatever else lies there is somebody's own: it neither counts nor goes.

Processes agree by these locks alone (locks.py), and a killed one leaves none. A part counts with all the bytes that
it will have, so fetches under way are inside the bound; one that nobody holds is the rest of a killed fetch, and is
continued, or removed when room is needed. What another user has fetched is read like one's own; it goes only where
the folder's mode allows that.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum, auto
from pathlib import Path
from typing import BinaryIO

from stackgan_dist.data.index import Shard
from stackgan_dist.machine import user_name
from stackgan_dist.storage.locks import holding, is_held, open_alone, share

_SHARD = re.compile(r"[0-9a-f]{64}\.tar")
_PART = re.compile(r"[0-9a-f]{64}\.\d+\.part")


class Unavailable(Enum):
    """Why no place was given to a shard."""

    HERE = auto()
    """It has come meanwhile."""
    BUSY = auto()
    """Another process is fetching it, or all the room is taken by fetches under way."""
    FULL = auto()
    """There is room only in place of shards that are in use or wanted sooner."""


@dataclass(frozen=True)
class _Entry:
    used_ns: int
    """When it was last used."""
    bytes: int
    """What it counts."""
    path: Path


class CacheFolder:
    """The shards kept on this node.

    Args:
        folder: made when needed.
        limit_bytes: the bound on all shards and parts together. The longest unused go first.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes

    def path(self, shard: Shard) -> Path:
        """Where it lies once it is whole."""
        return self.folder / f"{shard.sha256}.tar"

    def open(self, shard: Shard) -> BinaryIO | None:
        """The shard, locked as in use until it is closed; None when it is not here."""
        try:
            file = self.path(shard).open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return None
        share(file)
        stat = os.fstat(file.fileno())
        if stat.st_nlink and stat.st_size == shard.bytes:
            with suppress(OSError):  # another user's, or on a disk that is only read: its age counts from the fetch
                os.utime(file.fileno())
            return file
        file.close()
        if stat.st_nlink:  # a file that someone cut short
            with self._counting():
                self.path(shard).unlink(missing_ok=True)
        return None

    def place(self, shard: Shard, *, urgent: bool, keep: Collection[str] = ()) -> BinaryIO | Unavailable:
        """The part file of `shard`, locked, with room for all of it; the caller fetches into it and calls `finish`.

        When `urgent`, anything may go for it, what is in use last. Otherwise neither shards in use go, nor those whose
        sha256 is in `keep`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._counting():
            if self.path(shard).exists():
                return Unavailable.HERE
            part_path = self._part(shard)
            try:
                part = open_alone(part_path)
            except PermissionError:  # the rest of another user's killed fetch cannot be continued
                part_path.unlink(missing_ok=True)
                part = open_alone(part_path)
            if part is None:
                return Unavailable.BUSY
            try:
                lacking = self._make_room(shard, urgent=urgent, keep=keep)
                if lacking <= 0:
                    return part
                others = any(is_held(entry.path) for entry in self._parts() if entry.path != part_path)
                if urgent and not others:
                    return part  # larger than the bound, and needed all the same
                if not os.fstat(part.fileno()).st_size:
                    part_path.unlink()
            except BaseException:
                part.close()
                raise
            part.close()
            return Unavailable.BUSY if urgent else Unavailable.FULL

    def finish(self, shard: Shard) -> None:
        """Turn the part of `shard`, which is complete, and of which the caller holds the lock, into the shard."""
        with self._counting():  # or another process might look for the shard just before, and for its part just after
            self._part(shard).replace(self.path(shard))

    def give_back(self, shard: Shard) -> None:
        """Remove the part of `shard`, of which the caller holds the lock."""
        self._part(shard).unlink(missing_ok=True)

    def shrink(self, shard: Shard, *, urgent: bool) -> bool:
        """Adapt to a full disk: what lies here becomes the bound; whether anything could be removed.

        Room is made for the part of `shard`, which the caller holds.
        """
        with self._counting():
            present = self._present()
            if present < self.limit_bytes:
                self.limit_bytes = present
                print(
                    f"shard cache: the disk of {self.folder} is full; going on with the {present / 1e9:.3g} GB that "
                    "fit there. Shards may have to be fetched again: make room, or give another folder (--data.cache)",
                    file=sys.stderr,
                    flush=True,
                )
            self._make_room(shard, urgent=urgent, keep=())
            return self._present() < present

    def progress(self) -> frozenset[tuple[str, int]]:
        """Something that changes whenever a fetch gets on, ends or begins."""
        return frozenset((entry.path.name, entry.bytes) for entry in [*self._shards(), *self._parts(present=True)])

    @contextmanager
    def _counting(self) -> Iterator[None]:
        with holding(self.folder / ".lock"):
            yield

    def _present(self) -> int:
        """Bytes that lie here, not counting what is still to come of the parts."""
        return sum(entry.bytes for entry in [*self._shards(), *self._parts(present=True)])

    def _part(self, shard: Shard) -> Path:
        return self.folder / f"{shard.sha256}.{shard.bytes}.part"

    def _shards(self) -> list[_Entry]:
        return sorted(self._entries(_SHARD), key=lambda entry: entry.used_ns)

    def _parts(self, *, present: bool = False) -> list[_Entry]:
        """With all the bytes that they will have; `present`: with those that are here."""
        parts = self._entries(_PART)
        return parts if present else [replace(one, bytes=int(one.path.name.split(".")[1])) for one in parts]

    def _entries(self, names: re.Pattern[str]) -> list[_Entry]:
        found = []
        for path in self.folder.iterdir():
            if names.fullmatch(path.name) is None:
                continue
            try:
                stat = path.stat()
            except FileNotFoundError:  # another process was quicker
                continue
            found.append(_Entry(stat.st_mtime_ns, stat.st_size, path))
        return found

    def _make_room(self, shard: Shard, *, urgent: bool, keep: Collection[str]) -> int:
        """Remove what has to go; the bytes that are lacking then, 0 or less when there is room."""
        own = self._part(shard)
        shards, parts = self._shards(), [entry for entry in self._parts() if entry.path != own]
        lacking = sum(entry.bytes for entry in [*shards, *parts]) + shard.bytes - self.limit_bytes
        kept = {f"{sha256}.tar" for sha256 in keep}
        for entry in sorted([*parts, *shards], key=lambda entry: entry.used_ns):
            if lacking <= 0:
                return lacking
            if entry.path.name not in kept and not is_held(entry.path):
                lacking -= _removed_bytes(entry)
        if urgent:
            # Their readers find out, close them, and fetch them again when they need them.
            for entry in self._shards():
                if lacking <= 0:
                    break
                lacking -= _removed_bytes(entry)
        return lacking


def _removed_bytes(entry: _Entry) -> int:
    """Remove `entry`; how much room that makes: none where another user's may not be removed."""
    try:
        entry.path.unlink(missing_ok=True)
    except PermissionError:
        return 0
    return entry.bytes


def default_cache_folder() -> Path:
    """Where remote shards are cached when nothing else is said: node-local, per user."""
    return Path(tempfile.gettempdir()) / f"stackgan_dist-{user_name()}" / "shards"
