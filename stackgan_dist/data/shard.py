"""Shards, opened for access by offset.

A shard is a plain WebDataset tar. Its headers are read once; after that a sample is one or two reads at known
offsets, in any order.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.index import Index
from stackgan_dist.data.shard_classes import ShardClasses
from stackgan_dist.errors import UserError
from stackgan_dist.machine import TooManyOpenFilesError, open_files_limit

_BLOCK = 512
"""Bytes; a tar is made of such."""
_OTHER_FILES = 48
"""Connections, logs and libraries that a process has open beside its shards."""


class ShardReader:
    """Random access to the samples of one tar.

    Args:
        file: the tar, opened for reading; the reader owns it.
        name: what to call it in errors.
        samples: the number of samples that the index promises.

    Raises:
        UserError: the tar is unreadable, or holds other samples than promised.
    """

    def __init__(self, file: BinaryIO, name: str, samples: int) -> None:
        self.name = name
        self.file = file
        """The tar."""
        self._members: list[dict[str, tuple[int, int]]] = []
        self.keys: list[str] = []
        """Key of each sample, in the order of the tar."""
        self._header: tuple[bytes, np.dtype[Any], tuple[int, ...]] = (b"", np.dtype("f2"), ())  # of embeddings
        self._scan()
        if len(self.keys) != samples:
            raise UserError(f"{name} holds {len(self.keys)} samples, its index says {samples}; pack the set again")
        names = [str(self.meta(sample).get("class", key)) for sample, key in enumerate(self.keys)]
        self.classes = ShardClasses(name, names)
        """Of its samples."""

    def _scan(self) -> None:
        by_key: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            for name, offset, size in _files(self.file):
                key, _, extension = name.partition(".")
                by_key.setdefault(key, {})[extension] = (offset, size)
        except tarfile.TarError as error:
            raise UserError(f"{self.name} is not a readable tar: {error}; pack the set again") from error
        self.keys = list(by_key)
        self._members = list(by_key.values())

    def _place(self, sample: int, extension: str) -> tuple[int, int]:
        """Offset and size of a member."""
        try:
            return self._members[sample][extension]
        except KeyError:
            raise UserError(
                f"{self.name}: sample {self.keys[sample]} has no .{extension}, only "
                f"{', '.join(sorted(self._members[sample]))}; pack the set again"
            ) from None

    def _read(self, sample: int, extension: str) -> bytes:
        offset, size = self._place(sample, extension)
        return os.pread(self.file.fileno(), size, offset)

    def read_behind(self, sample: int, extension: str, head: bytes, out: NDArray[Any]) -> bool:
        """Fill `out` with a member, where that is `head` and then as many bytes as `out` has; whether it is."""
        offset, size = self._place(sample, extension)
        if size != len(head) + out.nbytes:
            return False
        found = bytearray(len(head))
        return os.preadv(self.file.fileno(), [found, out.data], offset) == size and found == head

    def jpeg(self, sample: int) -> bytes:
        """The picture of a sample, encoded."""
        return self._read(sample, "jpg")

    def embeddings(self, sample: int) -> NDArray[np.float16]:
        """Text embeddings of a sample, (captions, dim)."""
        data = self._read(sample, "emb.npy")
        # numpy takes ten times as long to parse a header as for the rest, and the samples of a set share theirs.
        header, dtype, shape = self._header
        if header and data.startswith(header):
            return np.frombuffer(data, dtype, offset=len(header)).reshape(shape)
        array: NDArray[np.float16] = np.load(io.BytesIO(data), allow_pickle=False)
        if array.flags.c_contiguous:
            self._header = data[: len(data) - array.nbytes], array.dtype, array.shape
        return array

    def meta(self, sample: int) -> dict[str, Any]:
        """KEY.json of a sample: captions, class, id, and what else its source knows (shards/README.md)."""
        meta: dict[str, Any] = json.loads(self._read(sample, "json"))
        return meta

    def members(self, sample: int) -> dict[str, bytes]:
        """All members of a sample, {extension: content}, in the order of the tar."""
        return {extension: self._read(sample, extension) for extension in self._members[sample]}

    def close(self) -> None:
        """Close the tar."""
        self.file.close()


def _files(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size of each file of a tar.

    From the first header on that is not a plain file's of USTAR, tarfile reads the rest, which takes ten times as
    long. Checksums are not looked at: the digest of the whole tar was.
    """
    at, end = 0, os.fstat(file.fileno()).st_size
    while True:
        header = os.pread(file.fileno(), _BLOCK, at)
        size = header[124:136].rstrip(b"\0 ")
        if not (
            header[257:263] == b"ustar\0" and header[156:157] == b"0" and header[345:346] == b"\0" and size.isdigit()
        ):
            break
        begin, length = at + _BLOCK, int(size, 8)
        if begin + length > end:
            break
        yield header[:100].rstrip(b"\0").decode(), begin, length
        at = begin + -(-length // _BLOCK) * _BLOCK
    file.seek(at)
    with tarfile.open(fileobj=file, mode="r:") as tar:
        for member in tar:
            if member.isfile():
                yield member.name, member.offset_data, member.size


class OpenShards:
    """Readers of a data set's shards by number; at most `keep` stay open, and fewer where the system allows fewer."""

    def __init__(self, index: Index, cache: ShardCache, keep: int) -> None:
        self._index, self._cache = index, cache
        self._keep = min(keep, max(1, open_files_limit() - _OTHER_FILES))
        self._readers: OrderedDict[int, ShardReader] = OrderedDict()

    def __getitem__(self, number: int) -> ShardReader:
        if number not in self._readers:
            shard = self._index.shards[number]
            self._readers[number] = ShardReader(self._opened(number), shard.name, shard.samples)
            self.close_removed()
            if len(self._readers) > self._keep:
                self._close_oldest()
        self._readers.move_to_end(number)
        return self._readers[number]

    def _opened(self, number: int) -> BinaryIO:
        """Shard `number`, open. Where the rest of the process has taken the files that were left, old ones give way."""
        while True:
            try:
                return self._cache.open(number)
            except TooManyOpenFilesError:
                if not self._readers:
                    raise
                self._close_oldest()

    def _close_oldest(self) -> None:
        self._readers.popitem(last=False)[1].close()

    def close(self) -> None:
        """Close all of them."""
        while self._readers:
            self._readers.popitem()[1].close()

    def close_removed(self) -> None:
        """Free the room of what the cache has removed meanwhile, here or in another process."""
        for number in [each for each, reader in self._readers.items() if self._cache.wants_back(reader.file)]:
            self._readers.pop(number).close()
