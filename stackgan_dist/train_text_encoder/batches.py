"""Which pictures and captions stand in the rows of a step: a pure function of (seed, step), whatever the ranks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.randomness import Stream, integers, permutation


class Pairs(NamedTuple):
    """The rows of a global batch, (B,) each."""

    pictures: NDArray[np.int64]
    views: NDArray[np.int64]
    captions: NDArray[np.int64]


class ClassBatches:
    """Batches of as many different classes as they have rows, one picture, view and caption of each.

    Args:
        labels: class of every picture, (pictures,).
        views: of every picture.
        captions: of every picture.
        batch_size: rows B, at most as many as there are classes.
        seed: chooses everything.
    """

    def __init__(self, labels: NDArray[np.int64], views: int, captions: int, batch_size: int, seed: int) -> None:
        self._by_class = np.argsort(labels, kind="stable")
        _, self._begins, self._counts = np.unique(labels[self._by_class], return_index=True, return_counts=True)
        self._views, self._captions = views, captions
        self.batch_size, self._seed = batch_size, seed

    def __getitem__(self, step: int) -> Pairs:
        rows = np.arange(self.batch_size)
        classes = permutation(len(self._counts), self._seed, Stream.EMBEDDING_CLASS, step)[: self.batch_size]
        pictures = integers(self._counts[classes], self._seed, Stream.EMBEDDING_PICTURE, step, rows)
        return Pairs(
            self._by_class[self._begins[classes] + pictures],
            integers(self._views, self._seed, Stream.EMBEDDING_VIEW, step, rows),
            integers(self._captions, self._seed, Stream.EMBEDDING_CAPTION, step, rows),
        )
