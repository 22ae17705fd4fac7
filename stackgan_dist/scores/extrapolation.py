"""The Frechet distance that infinitely many pictures would have, and how much it differs from sample to sample.

A Frechet distance of N generated pictures is too large by about a constant over N, and the constant is another for
each generator, so equal counts alone do not make two distances comparable. Chong and Forsyth (arXiv 1911.07023,
section 3) fit a line to the distances of several numbers of pictures over 1 / N and read it at 0.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from stackgan_dist.distributed.collectives import sum_over_ranks
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.randomness import Stream, permutation
from stackgan_dist.scores.blocks import SharedFeatures
from stackgan_dist.scores.frechet import FrechetSlope, FrechetSums, PictureMoments, frechet_distance

POINTS = 15
"""Numbers of pictures that the line is fitted to, as in the authors' code."""
FEWEST_PER_FEATURE = 2
"""Fewer pictures than twice the features leave no room between a covariance that is singular and all pictures."""


def frechet_of_infinitely_many(
    generated: SharedFeatures, real: PictureMoments, seed: int, ranks: Ranks
) -> float | None:
    """The distance from `real` at 1 / N = 0; None with fewer than twice as many pictures as features.

    The line goes through POINTS subsets at random, from just above the number of features, or a quarter of the pictures
    where that is more, to all of them. The real side stays as it is.
    """
    if generated.count < FEWEST_PER_FEATURE * generated.width:
        return None
    fewest = max(generated.width + 1, generated.count // 4)
    counts = np.linspace(fewest, generated.count, POINTS).astype(int)
    distances = torch.zeros(POINTS, dtype=torch.float64)
    for point, count in enumerate(counts.tolist()):
        chosen = torch.zeros(generated.count, dtype=torch.bool)
        chosen[permutation(generated.count, seed, Stream.SCORE_SUBSET, point)[:count]] = True
        sums = FrechetSums(generated.width)
        for number, rows in generated.own():
            begin = number * generated.block
            sums.add(rows.cpu()[chosen[begin : begin + len(rows)]])
        sum_over_ranks(sums.tensor, ranks)
        if point % ranks.world_size == ranks.rank:  # the roots of large matrices, which ranks find at the same time
            distances[point] = frechet_distance(sums, real)
    sum_over_ranks(distances, ranks)
    _, at_zero = np.polyfit(1 / counts, distances.numpy(), 1)
    return float(at_zero)


def frechet_deviation(
    generated: SharedFeatures,
    generated_moments: PictureMoments,
    real_moments: PictureMoments,
    real: SharedFeatures | None,
) -> float:
    """The standard deviation of the distance over other samples of both sides; NaN where covariances are singular.

    The deviation of a picture's influence is taken from the features that are kept, the number of pictures from the
    moments. `real`: None where the real side is only a mean and a covariance, which count as exact.
    """
    variance = 0.0
    sides = [(generated, generated_moments, real_moments)]
    if real is not None:
        sides.append((real, real_moments, generated_moments))
    for features, own, other in sides:
        count = own.count
        if count is None or min(count, other.count or count) <= features.width or features.count < 2:
            return math.nan
        slope = FrechetSlope(own, other)
        found = ((number, slope.influences(rows.cpu())[:, None]) for number, rows in features.own())
        variance += features.gathered(found, 1).var(correction=1).item() / count
    return math.sqrt(variance)
