"""Decoded samples of a set that fits into memory: a JPEG is decoded once a run, not once an epoch.

A store is filled with what is asked for, hence without a wait at the start, and shared by all processes that are forked
off the one that made it: the loader workers of a rank. It holds what the shards hold, so batches are the same with it.
"""

from __future__ import annotations

import mmap
import multiprocessing
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
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
        self._known = bytearray(count)  # of those that are set, by this process
        # Whoever sees that an array is set has to see its content, on processors that reorder writes, too.
        self._lock = multiprocessing.Lock()

    def __reduce__(self) -> Any:
        # A process that is no fork fills a store of its own.
        return Kept, self._made_of

    def __contains__(self, number: int) -> bool:
        if not self._known[number]:
            with self._lock:
                self._known[number] = self._is_set[number]
        return self._known[number] == 1

    def __setitem__(self, number: int, value: NDArray[T]) -> None:
        """Processes that set the same array at once must set the same value."""
        self.content[number] = value
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
        self._first: list[int] = (np.cumsum(sizes) - sizes).tolist()
        texts, picture = (index.captions_per_image, index.text_dim), (3, index.image_size, index.image_size)
        fit_texts = _bytes(index.samples, texts, 2) <= limit_bytes
        fit_all = _bytes(index.samples, texts, 2) + _bytes(index.samples, picture, 1) <= limit_bytes
        self.texts = Kept(index.samples, texts, np.float16) if fit_texts else None
        self.pictures = Kept(index.samples, picture, np.uint8) if fit_all else None

    def number(self, shard: int, sample: int) -> int:
        """The number of a sample of a shard."""
        return self._first[shard] + sample


def crops_of(
    pictures: NDArray[np.uint8], numbers: NDArray[np.int64], corners: NDArray[np.int64], size: int
) -> NDArray[np.uint8]:
    """The squares (n, 3, size, size) of `pictures` (N, 3, side, side), one for each of the n `numbers`, whose left top
    `corners` (n, 2) are."""
    windows = sliding_window_view(pictures, (size, size), axis=(2, 3))
    return windows[numbers, :, corners[:, 1], corners[:, 0]]


def _bytes(count: int, shape: tuple[int, ...], width: int) -> int:
    return count * int(np.prod(shape)) * width


def _shared(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    # Not in /dev/shm, where containers have little room.
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(mmap.mmap(-1, max(size, 1)), dtype, count=int(np.prod(shape))).reshape(shape)
