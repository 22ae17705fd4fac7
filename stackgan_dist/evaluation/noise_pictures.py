"""Pictures of noise: what a score gives where there is nothing to see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stackgan_dist.data.draws import Stream
from stackgan_dist.randomness import uniform


@dataclass(frozen=True)
class NoiseBatch:
    """Some numbered pictures."""

    numbers: Tensor
    """(n,), int64."""
    images: Tensor
    """(n, 3, S, S), every value uniform in [-1, 1] and independent of all others."""


def noise_pictures(
    count: int, image_size: int, batch_size: int, seed: int, rank: int, world_size: int
) -> Iterator[NoiseBatch]:
    """One rank's batches of `count` pictures of noise; whole batches are dealt out."""
    for begin in range(rank * batch_size, count, world_size * batch_size):
        numbers = np.arange(begin, min(begin + batch_size, count))
        values = uniform(seed, Stream.NOISE_PICTURE, numbers[:, None], np.arange(3 * image_size**2))
        images = torch.from_numpy(2 * values - 1).float().view(-1, 3, image_size, image_size)
        yield NoiseBatch(torch.from_numpy(numbers), images)
