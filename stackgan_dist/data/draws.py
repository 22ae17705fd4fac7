"""Everything random about row i of step t, as a pure function of (seed, t, i).

Rows are numbered in the global batch, so a draw does not know how many ranks or workers there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, unique

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.data.randomness import hash64, integers, normal, uniform


@unique
class Stream(IntEnum):
    """One number per purpose keeps the draws of a row independent of each other. Never renumber: runs depend on it."""

    SHARD_ORDER = 0
    SAMPLE_ORDER = 1
    CAPTION = 2
    CROP_LEFT = 3
    CROP_TOP = 4
    FLIP = 5
    WRONG_SAMPLE = 6
    WRONG_CAPTION = 7
    NOISE = 8
    CONDITIONING = 9
    SCORE_SAMPLE = 10
    SCORE_CAPTION = 11
    SCORE_NOISE = 12
    SCORE_CONDITIONING = 13
    PARTNER_SAMPLE = 14
    PARTNER_CAPTION = 15
    BETWEEN_NOISE = 16
    BETWEEN_CONDITIONING = 17
    SCORE_REAL = 18
    SCORE_CANDIDATE = 19
    SCORE_WRONG = 20
    HELD_OUT = 21
    CLASSIFIER_CROP = 22
    NOISE_PICTURE = 23
    EMBEDDING_CLASS = 24
    EMBEDDING_PICTURE = 25
    EMBEDDING_VIEW = 26
    EMBEDDING_CAPTION = 27
    EMBEDDING_DROPOUT = 28
    FINE_TUNING_ORDER = 29


def crops(seed: int, step: int, rows: Sequence[int], slack: int) -> NDArray[np.int64]:
    """Left and top of each row's crop, (n, 2), each uniform in 0..slack pixels, both ends included."""
    where = np.asarray(rows)
    lefts = integers(slack + 1, seed, Stream.CROP_LEFT, step, where)
    tops = integers(slack + 1, seed, Stream.CROP_TOP, step, where)
    return np.stack([lefts, tops], axis=1)


def flips(seed: int, step: int, rows: Sequence[int]) -> NDArray[np.bool_]:
    """Whether each row is mirrored left to right, (n,), with probability 0.5."""
    return integers(2, seed, Stream.FLIP, step, np.asarray(rows)).astype(bool)


def captions(
    seed: int, stream: Stream, step: int, rows: int | Sequence[int], available: int, wanted: int
) -> NDArray[np.int64]:
    """`wanted` of the `available` captions of each row's picture, (n, wanted), or (wanted,) for a single row; without
    replacement."""
    hashes = hash64(seed, stream, step, np.asarray(rows)[..., None], np.arange(available))
    return np.argsort(hashes, axis=-1, kind="stable")[..., :wanted]


def points(seed: int, stream: Stream, step: int, rows: Sequence[int]) -> list[float]:
    """Uniform in (0, 1), one for each row: `pick` chooses by it, once it is known among how many."""
    return uniform(seed, stream, step, np.asarray(rows)).tolist()


def pick(point: float, among: int) -> int:
    """The choice, in 0..among - 1, that a point stands for."""
    return int(point * among)


def gaussian(seed: int, stream: Stream, step: int, rows: Sequence[int], dim: int) -> NDArray[np.float32]:
    """Standard normal numbers for each row, (n, dim)."""
    return normal(seed, stream, step, np.asarray(rows)[:, None], np.arange(dim)).astype(np.float32)
