"""Two sets of pictures in one feature space: their distances, what they share, and how near training pictures are."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from stackgan_dist.classifiers.image_encoder import FolderEncoder, ImageEncoder
from stackgan_dist.distributed.collectives import sum_over_ranks
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.scores import intervals
from stackgan_dist.scores.blocks import SharedFeatures
from stackgan_dist.scores.cmmd import gaussian_discrepancy
from stackgan_dist.scores.extrapolation import frechet_deviation, frechet_of_infinitely_many
from stackgan_dist.scores.frechet import PictureMoments, frechet_distance
from stackgan_dist.scores.intervals import Interval, IntervalOf
from stackgan_dist.scores.kernel import FirstFeatures, KernelDistance, squared_discrepancy
from stackgan_dist.scores.neighbours import nearer_share, nearest, neighbourhoods
from stackgan_dist.scores.picture_sums import FeatureSums
from stackgan_dist.scores.protocol import ScoreProtocol

MANIFOLD, DENSITY = 3, 5
"""Neighbours that a ball reaches to: for precision and recall, for density and coverage; both as published."""


@dataclass(frozen=True)
class RealSet:
    """The real side in one feature space."""

    moments: PictureMoments
    first: FirstFeatures | None
    """The features of the first real pictures; None where only a mean and a covariance are known."""
    training: FirstFeatures | None
    """Those of the first training pictures; None where none are named."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; the interval is None where there is none."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Memorisation:
    """Whether generated pictures are nearer to training pictures than held-out real ones are."""

    nearer: Estimate
    """The probability that a generated picture is nearer than a held-out one: 0.5 where nothing was learnt by heart."""
    distance: float
    """Mean distance to the nearest training picture."""
    distance_of_held_out: float
    training_pictures: int


@dataclass(frozen=True)
class Comparison:
    """All that is said of two sets in a space."""

    samples: int
    """Generated pictures."""
    frechet: Estimate
    frechet_of_infinitely_many: float | None
    real_pictures: int | None
    """None where a statistics file does not say."""
    kernel: KernelDistance | None = None
    kernel_interval: Interval | None = None
    cmmd: float | None = None
    shares: dict[str, Estimate] = field(default_factory=dict)
    """precision, recall, density, coverage; none where there are too few pictures."""
    compared: tuple[int, int] = (0, 0)
    """Generated and real pictures behind the shares."""
    memorisation: Memorisation | None = None


def compare(
    generated: FeatureSums, real: RealSet, encoder: ImageEncoder, protocol: ScoreProtocol, seed: int, ranks: Ranks
) -> Comparison:
    """Merged sums of the generated pictures with the real side; all ranks take part and get the same."""
    samples, most = generated.frechet.count, protocol.neighbour_samples
    fakes = SharedFeatures(generated.first, ranks, count=min(most, samples))
    first = real.first
    reals = None if first is None else SharedFeatures(first, ranks, count=min(most, first.count))
    distance = frechet_distance(generated.frechet, real.moments)
    deviation = frechet_deviation(fakes, generated.frechet, real.moments, reals)
    frechet = Estimate(distance, intervals.of_deviation(distance, deviation))
    infinite = frechet_of_infinitely_many(fakes, real.moments, seed, ranks)
    if first is None or reals is None:
        return Comparison(samples, frechet, infinite, real.moments.count)

    kernel = kernel_distance(generated.first, first, protocol, ranks)
    shares: dict[str, Estimate] = {}
    if min(fakes.count, reals.count) > max(MANIFOLD, DENSITY):
        found = neighbourhoods(fakes, reals, MANIFOLD, DENSITY)
        shares = {name: _mean(values, seed, name) for name, values in vars(found).items()}
    is_clip = isinstance(encoder, FolderEncoder) and encoder.kind == "clip"
    return Comparison(
        samples,
        frechet,
        infinite,
        real.moments.count,
        kernel,
        intervals.of_mean(torch.tensor(kernel.per_block), seed, IntervalOf.KERNEL),
        _cmmd(generated.first, first, most, ranks) if is_clip else None,
        shares,
        (fakes.count, reals.count),
        _memorisation(fakes, reals, real.training, seed, ranks),
    )


def kernel_distance(
    generated: FirstFeatures, real: FirstFeatures, protocol: ScoreProtocol, ranks: Ranks
) -> KernelDistance:
    """KID over blocks of the first pictures of either side."""
    most = min(protocol.kernel_samples, generated.count, real.count)
    block = min(protocol.kernel_block, most)
    distances = torch.zeros(most // block, dtype=torch.float64)
    for number in range(len(distances)):
        sides = []
        for side in (generated, real):
            # Every row is on one rank and zero on the others: the sum is exact.
            rows = side.rows(number * block, (number + 1) * block)
            sum_over_ranks(rows, ranks)
            sides.append(rows)
        if number % ranks.world_size == ranks.rank:
            distances[number] = squared_discrepancy(*sides)
    sum_over_ranks(distances, ranks)
    return KernelDistance.of_blocks(distances, block)


def _cmmd(generated: FirstFeatures, real: FirstFeatures, most: int, ranks: Ranks) -> float:
    sides = [SharedFeatures(side, ranks, count=min(most, side.count), unit=True) for side in (generated, real)]
    return gaussian_discrepancy(sides[0], sides[1], ranks)


def _memorisation(
    fakes: SharedFeatures, reals: SharedFeatures, training: FirstFeatures | None, seed: int, ranks: Ranks
) -> Memorisation | None:
    if training is None or not training.count:
        return None
    known = SharedFeatures(training, ranks)
    of_fakes, of_reals = (nearest(side, known, 1)[:, 0].sqrt() for side in (fakes, reals))
    return Memorisation(
        _mean(nearer_share(of_fakes, of_reals), seed, "memorisation"),
        of_fakes.mean().item(),
        of_reals.mean().item(),
        training.count,
    )


def _mean(values: Tensor, seed: int, name: str) -> Estimate:
    return Estimate(values.mean().item(), intervals.of_mean(values, seed, IntervalOf[name.upper()]))
