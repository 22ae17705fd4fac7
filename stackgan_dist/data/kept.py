"""Decoded samples that the loader processes of a rank share, in memory that is filled with what is asked for.

A store is filled as it is used, hence without a wait at the start. It holds what the shards hold, so batches are the
same with it.
"""

from __future__ import annotations

import fcntl
import mmap
import multiprocessing
import os
import weakref
from contextlib import AbstractContextManager
from multiprocessing.context import get_spawning_popen
from multiprocessing.reduction import DupFd
from typing import Any, Generic, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from stackgan_dist.data.index import Index

T = TypeVar("T", bound=np.generic)


class Kept(Generic[T]):
    """Arrays of one shape by number; none is there until it is set.

    Forks of the process that made it share it, and on Linux also processes that multiprocessing starts otherwise, where
    it is among what they are given at their start. Pickled at any other time, it becomes an empty one.

    Args:
        count: of the arrays.
        shape: of each.
        dtype: of each.
        file: descriptor of the memory, where another process has made it; owned by this object from now on.
    """

    content: NDArray[T]
    """(count, *shape); memory is taken by what was set."""

    def __init__(self, count: int, shape: tuple[int, ...], dtype: DTypeLike, file: int | None = None) -> None:
        self._made_of = count, shape, dtype
        numbers = count * int(np.prod(shape))
        content_bytes = numbers * np.dtype(dtype).itemsize
        size = max(content_bytes + count, 1)
        self._file = _nameless(size) if file is None else file
        self._lock: AbstractContextManager[object]
        if self._file is None:
            memory, self._lock = mmap.mmap(-1, size), multiprocessing.get_context("fork").Lock()
        else:
            weakref.finalize(self, os.close, self._file)
            memory, self._lock = mmap.mmap(self._file, size), _LockedMemory(self._file)
        self.content = np.frombuffer(memory, dtype, count=numbers).reshape(count, *shape)
        self._is_set = np.frombuffer(memory, np.uint8, count=count, offset=content_bytes)
        self.known = bytearray(count)
        """Of each, 1 where it is known to this process that it is set."""

    def __reduce__(self) -> Any:
        if self._file is None or get_spawning_popen() is None:
            return Kept, self._made_of
        return Kept._of_another_process, (*self._made_of, DupFd(self._file))

    @classmethod
    def _of_another_process(cls, count: int, shape: tuple[int, ...], dtype: DTypeLike, file: Any) -> Self:
        return cls(count, shape, dtype, file.detach())

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


class _LockedMemory:
    """Whoever sees that an array is set has to see its content, on processors that reorder writes, too.

    Memory that has a descriptor is locked by it, in any process that was handed it.
    """

    def __init__(self, file: int) -> None:
        self._file = file

    def __enter__(self) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN)


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


def _nameless(size: int) -> int | None:
    """The descriptor of `size` bytes, all 0, that take memory once they are written to; None where Linux is not."""
    # Not in /dev/shm, where containers have little room.
    if not hasattr(os, "memfd_create"):
        return None
    file = os.memfd_create("stackgan-samples")
    os.truncate(file, size)
    return file
