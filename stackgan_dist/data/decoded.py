"""Samples decoded: out of an open shard, held to what the index promises, and kept where a set fits into memory.

A store is filled with what is asked for, hence without a wait at the start, and shared by all processes that are forked
off the one that made it: the loader workers of a rank. It holds what the shards hold, so batches are the same with it.
"""

from __future__ import annotations

import io
import mmap
import multiprocessing
from typing import Any, Generic, TypeVar

import numpy as np
import simplejpeg
from numpy.typing import DTypeLike, NDArray

from stackgan_dist.data.index import Index
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.errors import UserError

T = TypeVar("T", bound=np.generic)


class SampleDecoder:
    """Decodes the samples of one data set. What `picture` returns is overwritten by the next call."""

    def __init__(self, index: Index) -> None:
        self._side = index.image_size
        self._texts = (index.captions_per_image, index.text_dim)
        self._header = _header(self._texts)
        # Reused: fresh memory of this size comes in pages that the system has to clear, for a tenth of the time.
        self._buffer = np.empty((self._side, self._side, 3), np.uint8)

    def picture(self, encoded: bytes, reader: ShardReader, sample: int) -> NDArray[np.uint8]:
        """The stored picture, (side, side, 3), out of `encoded`, the JPEG of `sample` of `reader`.

        Raises UserError when it is damaged or of another size than promised.
        """
        side = self._side
        try:
            picture = self.pixels(encoded)
        except ValueError as error:
            raise UserError(
                f"{reader.name}: the picture of {reader.keys[sample]} cannot be decoded: {error}"
            ) from error
        if picture.shape != (side, side, 3):
            raise UserError(
                f"{reader.name}: the picture of {reader.keys[sample]} is {picture.shape[1]}x{picture.shape[0]}, its "
                f"index says {side}x{side}; pack the set again"
            )
        return picture

    def pixels(self, encoded: bytes) -> NDArray[np.uint8]:
        """A JPEG decoded, (height, width, 3); ValueError when it is damaged."""
        try:
            picture: NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded, colorspace="RGB", buffer=self._buffer)
        except ValueError:  # damaged, or larger than the buffer
            picture = simplejpeg.decode_jpeg(encoded, colorspace="RGB")
        return picture

    def embeddings(self, reader: ShardReader, sample: int, out: NDArray[np.float16]) -> None:
        """Of all captions into `out` (captions, dim); UserError when they are not of the promised shape."""
        if reader.read_behind(sample, "emb.npy", self._header, out):
            return
        embeddings = reader.embeddings(sample)
        if embeddings.shape != self._texts:
            raise UserError(
                f"{reader.name}: the embeddings of {reader.keys[sample]} are {embeddings.shape}, its index says "
                f"{self._texts}; pack the set again"
            )
        out[...] = embeddings


def _header(shape: tuple[int, ...]) -> bytes:
    """What a .npy file of such float16 numbers begins with."""
    file, numbers = io.BytesIO(), np.empty(shape, np.float16)
    np.save(file, numbers)
    return file.getvalue()[: -numbers.nbytes]


class Kept(Generic[T]):
    """Arrays of one shape by number, in memory that forked processes share; none is there until it is set.

    Args:
        count: of the arrays.
        shape: of each.
        dtype: of each.
    """

    content: NDArray[T]
    """(count, *shape); memory is taken by what was set."""

    def __init__(self, count: int, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._made_of = count, shape, dtype
        self.content = _shared((count, *shape), dtype)
        self._is_set = _shared((count,), np.uint8)
        self.known = bytearray(count)
        """Of each, 1 where it is known to this process that it is set."""
        # Whoever sees that an array is set has to see its content, on processors that reorder writes, too.
        self._lock = multiprocessing.Lock()

    def __reduce__(self) -> Any:
        # A process that is no fork fills a store of its own.
        return Kept, self._made_of

    def __contains__(self, number: int) -> bool:
        if not self.known[number]:
            with self._lock:
                self.known[number] = self._is_set[number]
        return self.known[number] == 1

    def __setitem__(self, number: int, value: NDArray[T]) -> None:
        """Processes that set the same array at once must set the same value."""
        self.content[number] = value
        self.set(number)

    def set(self, number: int) -> None:
        """Its `content` was written."""
        with self._lock:
            self._is_set[number] = 1


class SampleStore:
    """What fits of a data set: the embeddings first, which cost least; its samples numbered in the order of the shards.

    Args:
        index: of the data set.
        limit_bytes: the most memory that it may take.
    """

    texts: Kept[np.float16] | None
    """(captions, dim) of each sample; None where they do not fit."""
    pictures: Kept[np.uint8] | None
    """(3, side, side) of each sample; None where they do not fit beside the texts."""

    def __init__(self, index: Index, limit_bytes: int) -> None:
        texts, picture = (index.captions_per_image, index.text_dim), (3, index.image_size, index.image_size)
        fit_texts = _bytes(index.samples, texts, 2) <= limit_bytes
        fit_all = _bytes(index.samples, texts, 2) + _bytes(index.samples, picture, 1) <= limit_bytes
        self.texts = Kept(index.samples, texts, np.float16) if fit_texts else None
        self.pictures = Kept(index.samples, picture, np.uint8) if fit_all else None


def _bytes(count: int, shape: tuple[int, ...], width: int) -> int:
    return count * int(np.prod(shape)) * width


def _shared(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    # Not in /dev/shm, where containers have little room.
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(size, 1)), dtype, count=int(np.prod(shape))).reshape(shape)
