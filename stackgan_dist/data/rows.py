"""What the rows of a step draw: everything random about row i of step t, as a pure function of (seed, t, i).

Rows are numbered in the global batch, so a draw does not know how many ranks or workers there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from stackgan_dist.randomness import Stream, box_muller, extend, hash64, integers_of, normal_of, points_of, uniform_of

_BLOCK = 2**14
"""Numbers drawn at a time: the arrays of a block stay in a core's cache, and calls of numpy cost little of it."""

_LAST_BITS = 2**7
"""Numpy's and torch's logarithms and cosines are right to a few units of the last of 53 bits, and so are their
products; this is more, and 2**22 times less than a float32 can tell, so it is rarely looked at twice."""

OF_ROWS = (
    Stream.CROP_LEFT, Stream.CROP_TOP, Stream.FLIP, Stream.WRONG_SAMPLE,
    Stream.CAPTION, Stream.WRONG_CAPTION, Stream.NOISE, Stream.CONDITIONING,
)  # fmt: skip
"""What every row of a training step draws."""

OF_TEXTS_BETWEEN = (
    Stream.PARTNER_SAMPLE, Stream.PARTNER_CAPTION, Stream.BETWEEN_NOISE, Stream.BETWEEN_CONDITIONING
)  # fmt: skip
"""What a row draws beside those for a text between two."""


class RowDraws:
    """What n rows of one step draw.

    Args:
        seed: of the run.
        step: of the batch.
        rows: of the global batch.
        streams: which of them may be asked for; their hashes are made together, since for a few rows calls of numpy
            take longer than what they compute.
    """

    def __init__(self, seed: int, step: int, rows: Sequence[int], streams: Sequence[Stream]) -> None:
        of_streams = np.array([int(hash64(seed, stream, step)) for stream in streams], np.uint64)
        self._hashes = extend(of_streams, np.asarray(rows, np.int64)[:, None])  # (n, streams)
        self._column = {stream: column for column, stream in enumerate(streams)}

    def crops_and_flips(self, slack: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Left and top of each row's crop, (n, 2), and whether each row is mirrored left to right, (n,).

        Left and top are uniform in 0..slack pixels, both ends included; the mirror has probability 0.5.
        """
        hashes = self._of(Stream.CROP_LEFT, Stream.CROP_TOP, Stream.FLIP)
        drawn = integers_of(hashes, [slack + 1, slack + 1, 2])
        return drawn[:, :2], drawn[:, 2] == 1

    def captions(self, streams: Sequence[Stream], available: int, wanted: int) -> list[NDArray[np.int64]]:
        """Which `wanted` of the `available` captions of its picture a row takes, (n, wanted) for each stream.

        They are chosen without replacement.
        """
        hashes = extend(self._of(*streams)[..., None], np.arange(available))
        return list(np.argsort(hashes, axis=-1, kind="stable")[..., :wanted].swapaxes(0, 1))

    def points(self, stream: Stream) -> list[float]:
        """Uniform in (0, 1), one for each row: `pick` chooses by it, once it is known among how many."""
        points: list[float] = uniform_of(self._of(stream)[:, 0]).tolist()
        return points

    def gaussians(self, dims: Mapping[Stream, int]) -> list[NDArray[np.float32]]:
        """Standard normal numbers, (n, dim) for each stream and its dim."""
        of_streams = self._of(*dims)
        stream = np.repeat(np.arange(len(dims)), list(dims.values()))
        number = np.concatenate([np.arange(dim) for dim in dims.values()])
        drawn = np.empty((len(of_streams), len(number)), np.float32)
        block = max(1, _BLOCK // max(1, len(number)))
        for begin in range(0, len(drawn), block):
            hashes = extend(of_streams[begin : begin + block, stream], number)
            drawn[begin : begin + block] = normal32_of(hashes)
        ends = np.cumsum(list(dims.values())).tolist()
        return [drawn[:, end - dim : end].copy() for end, dim in zip(ends, dims.values(), strict=True)]

    def _of(self, *streams: Stream) -> NDArray[np.uint64]:
        return self._hashes[:, [self._column[stream] for stream in streams]]


def gaussian(seed: int, stream: Stream, step: int, rows: Sequence[int], dim: int) -> NDArray[np.float32]:
    """Standard normal numbers for each row, (n, dim)."""
    return RowDraws(seed, step, rows, (stream,)).gaussians({stream: dim})[0]


def normal32_of(hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
    """`normal_of(hashes)`, rounded to float32; hashes is an array of one dimension or more.

    Where it has vector instructions, torch takes a third of numpy's time for logarithms and cosines, which differ in
    their last bits. Once rounded they do not, unless a number lies just beside the middle between two float32 values:
    if one does, all are left to numpy.
    """
    numbers, angles = points_of(hashes)
    torch.from_numpy(numbers).log_()
    torch.from_numpy(angles).cos_()
    values = box_muller(numbers, angles)
    dropped = values.view(np.uint64) & np.uint64(2**29 - 1)  # bits that float32 has no room for
    dropped -= np.uint64(2**28 - _LAST_BITS)  # below the middle it wraps round to a large number
    if hashes.size and dropped.min() <= 2 * _LAST_BITS:
        values = normal_of(hashes)
    return values.astype(np.float32)


def caption_numbers(
    pictures: NDArray[np.int64], captions: NDArray[np.int64], captions_per_image: int
) -> NDArray[np.int64]:
    """The numbers of `captions` (n, k) of `pictures` (n,) among the captions of all pictures, (k, n)."""
    return np.ascontiguousarray((pictures[:, None] * captions_per_image + captions).T)
