"""How much a score would differ with other samples: intervals by the bootstrap, the same for the same seed.

Efron's percentile interval of a mean: the samples are drawn again with replacement, many times over. Pure arithmetic,
nothing distributed.
"""

from __future__ import annotations

import math
from enum import IntEnum, unique

import numpy as np
from torch import Tensor

from stackgan_dist.randomness import Stream, integers

Interval = tuple[float, float]
"""The lower and the upper end."""

RESAMPLES = 1_000
LEVEL = 0.95
_NORMAL = 1.959963984540054
"""Deviations of a normal distribution on either side that hold LEVEL of it."""
_FEWEST = 2
_NUMBERS_AT_ONCE = 2**20


@unique
class IntervalOf(IntEnum):
    """Which interval it is: those of one seed draw their samples again independently of each other."""

    INCEPTION = 0
    PRECISION = 1
    RECALL = 2
    DENSITY = 3
    COVERAGE = 4
    MEMORISATION = 5
    KERNEL = 6
    R_PRECISION = 7
    CLIP = 8
    DIVERSITY = 9
    DIVERSITY_OF_FEATURES = 10
    CLIP_R_PRECISION = 11
    CLASSES = 12


def of_mean(values: Tensor, seed: int, what: IntervalOf) -> Interval | None:
    """The interval of the mean of `values` (N,), of independent samples or blocks.

    None for fewer than 2, and where all are alike: drawn again they say nothing about those that were not seen.

    Args:
        values: finite numbers; all ranks that ask must have the same.
        seed: chooses the samples that are drawn again.
        what: which interval it is.
    """
    found = np.asarray(values.detach().cpu().double())
    if len(found) < _FEWEST or (found == found[0]).all():
        return None
    at_once = max(1, _NUMBERS_AT_ONCE // len(found))
    means = [
        found[integers(len(found), seed, Stream.SCORE_RESAMPLE, what, some[:, None], np.arange(len(found)))].mean(
            axis=1
        )
        for some in np.split(np.arange(RESAMPLES), range(at_once, RESAMPLES, at_once))
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def of_deviation(value: float, deviation: float) -> Interval | None:
    """The interval of an estimate that is nearly normal with this standard `deviation`; None where that is NaN."""
    return None if math.isnan(deviation) else (value - _NORMAL * deviation, value + _NORMAL * deviation)
