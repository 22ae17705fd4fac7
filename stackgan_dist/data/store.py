"""Decoded samples of a set that fits into memory: a JPEG is decoded once a run, not once an epoch.

A store is filled with what is asked for, hence without a wait at the start, and shared by all processes that are forked
off the one that made it: the loader workers of a rank. It holds what the shards hold, so batches are the same with it.
"""

from __future__ import annotations

import mmap
import multiprocessing
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stackgan_dist.data.index import Index

T = TypeVar("T", bound=np.generic)


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
        sizes = [shard.samples for shard in index.shards]
        self.first: NDArray[np.int64] = np.cumsum(sizes, dtype=np.int64) - np.array(sizes, np.int64)
        """Number of the first sample of each shard."""
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
