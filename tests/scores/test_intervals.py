"""Intervals hold the truth as often as they say, and the Frechet distance's deviation is that of other samples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scores.one_rank import ALONE, shared
from torch import Tensor

from stackgan_dist.scores import intervals
from stackgan_dist.scores.extrapolation import frechet_deviation, frechet_of_infinitely_many
from stackgan_dist.scores.frechet import FrechetSlope, FrechetSums, frechet_distance
from stackgan_dist.scores.intervals import IntervalOf
from stackgan_dist.scores.statistics_file import GivenMoments

WHAT = IntervalOf.CLASSES


def test_the_interval_of_a_mean_equals_scipy_s() -> None:
    from scipy.stats import bootstrap

    values = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 2
    reference = bootstrap((values.numpy(),), np.mean, n_resamples=20_000, method="percentile", rng=1)
    found = intervals.of_mean(values, 0, WHAT)
    assert found == pytest.approx(tuple(reference.confidence_interval), abs=0.004)
    assert found == intervals.of_mean(values, 0, WHAT)
    assert found != intervals.of_mean(values, 1, WHAT)
    assert found != intervals.of_mean(values, 0, IntervalOf.KERNEL)


def test_chunks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(30.0)
    whole = intervals.of_mean(values, 3, WHAT)
    monkeypatch.setattr(intervals, "_NUMBERS_AT_ONCE", 100)
    assert intervals.of_mean(values, 3, WHAT) == whole


def test_one_sample_and_equal_ones_have_no_interval() -> None:
    assert intervals.of_mean(torch.ones(1), 0, WHAT) is None
    assert intervals.of_mean(torch.zeros(9), 0, WHAT) is None
    assert intervals.of_deviation(1.0, math.nan) is None
    assert intervals.of_deviation(1.0, 0.5) == pytest.approx((0.02, 1.98), abs=1e-3)


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = 0
    for number in range(200):
        drawn = torch.from_numpy(np.random.default_rng(number).exponential(size=60))
        low, high = intervals.of_mean(drawn, number, WHAT)
        held += low <= 1 <= high
    assert 0.88 < held / 200 < 0.99


def sums_of(features: Tensor) -> FrechetSums:
    sums = FrechetSums(features.shape[1])
    sums.add(features)
    return sums


def drawn(count: int, seed: int, *, shift: float = 0.0) -> Tensor:
    mix = torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.8, 0.5], [0.2, 0.0, 1.2]]) if shift else torch.eye(3)
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed)) @ mix + shift


def test_a_picture_s_influence_is_the_derivative_by_its_weight() -> None:
    features, other = drawn(40, 1, shift=0.5).double(), sums_of(drawn(50, 2).double())

    def weighted(number: int, weight: float) -> float:
        weights = torch.full((40, 1), 1.0, dtype=torch.float64)
        weights[number] += weight
        weights /= weights.sum()
        mean = (weights * features).sum(0)
        covariance = ((features - mean) * weights).T @ (features - mean)
        return frechet_distance(GivenMoments(mean, covariance, ""), other)

    mean = features.mean(0)
    own = GivenMoments(mean, (features - mean).T @ (features - mean) / 40, "")
    influences = FrechetSlope(own, other).influences(features)
    step = 1e-5
    numeric = torch.tensor([(weighted(n, step) - weighted(n, -step)) / (2 * step) * 40 for n in range(5)])
    torch.testing.assert_close((influences - influences.mean())[:5], numeric.double(), rtol=1e-3, atol=1e-4)


def test_the_deviation_of_a_frechet_distance_is_that_over_other_samples() -> None:
    distances, deviations = [], []
    many, others = drawn(120 * 300, 0, shift=0.4), drawn(120 * 400, 1)
    for fake, real in zip(many.split(300), others.split(400), strict=True):
        distances.append(frechet_distance(sums_of(fake), sums_of(real)))
        own, other = (shared(side, block=400) for side in (fake, real))
        deviations.append(frechet_deviation(own, sums_of(fake), sums_of(real), other))
    assert np.mean(deviations) == pytest.approx(np.std(distances), rel=0.2)


def test_singular_covariances_have_no_deviation() -> None:
    fake, real = torch.rand(9, 12), torch.rand(40, 12)
    assert math.isnan(frechet_deviation(shared(fake), sums_of(fake), sums_of(real), shared(real)))
    given = GivenMoments(*sums_of(real).moments(), "")
    assert frechet_deviation(shared(real[:30]), sums_of(real[:30]), given, None) > 0


def test_infinitely_many_pictures_are_nearer_to_the_truth_than_those_there_are() -> None:
    """Normal distributions of 20 features with a known distance, from few pictures, whose distance is far too large."""
    width, truth = 20, 20 * 0.2**2
    found, plain = [], []
    for number in range(12):
        generator = torch.Generator().manual_seed(number)
        fake = torch.randn(240, width, generator=generator) + 0.2
        exact = GivenMoments(torch.zeros(width).double(), torch.eye(width).double(), "")
        plain.append(frechet_distance(sums_of(fake), exact))
        value = frechet_of_infinitely_many(shared(fake, block=100), exact, 0, ALONE)
        assert value is not None
        found.append(value)
    assert np.mean(plain) - truth > 0.3
    assert abs(np.mean(found) - truth) < 0.1


def test_the_line_goes_through_distances_of_subsets_as_in_the_paper() -> None:
    from scipy.stats import linregress

    from stackgan_dist.randomness import Stream, permutation

    fake, real = drawn(120, 7, shift=0.3), sums_of(drawn(90, 8))
    counts = np.linspace(30, 120, 15).astype(int)
    subsets = [permutation(120, 5, Stream.SCORE_SUBSET, point)[:n] for point, n in enumerate(counts)]
    line = linregress(1 / counts, [frechet_distance(sums_of(fake[chosen]), real) for chosen in subsets])
    assert frechet_of_infinitely_many(shared(fake), real, 5, ALONE) == pytest.approx(line.intercept, rel=1e-9)


def test_too_few_pictures_are_not_extrapolated() -> None:
    assert frechet_of_infinitely_many(shared(torch.rand(23, 12)), sums_of(torch.rand(40, 12)), 0, ALONE) is None
