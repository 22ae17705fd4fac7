"""How strong each method is: Bradley-Terry for pairs, Plackett-Luce for more, by maximum likelihood.

A ranking is a sequence of choices: the best of all, then the best of the rest, ...; method i is chosen from a set S
with probability exp(t_i) / sum over S of exp(t_j) (Luce 1959; Plackett 1975; for two, Bradley and Terry 1952). Tied
methods could have stood in any order: each of these counts in equal parts, so a tie of two is half a win for each.

The likelihood is concave, so Newton's method finds its one maximum. Intervals resample raters, not votes, since the
votes of one rater agree with each other more than with those of others.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.stats import t as student

from stackgan_dist.randomness import integers

Array = NDArray[np.float64]

RIDGE = 1e-9
"""Of the strengths' squares: it fixes what the likelihood leaves open, their mean, and moves nothing else."""
_FARTHEST = 15.0
"""Strengths stop here where a method was never beaten: e^15 to one."""
_ITERATIONS = 200
_BOOTSTRAP_STREAM = 0x5109


@dataclass(frozen=True)
class Stages:
    """All choices that some votes consist of: S different ones by R raters among K methods."""

    chosen: NDArray[np.int64]
    """(S,): the method."""
    among: NDArray[np.bool_]
    """(S, K): from which it was chosen."""
    weights: Array
    """(R, S): how often each rater made it; fractions where there were ties."""

    @classmethod
    def of_votes(cls, methods: int, votes: Sequence[Sequence[Sequence[int]]], raters: Sequence[int]) -> Stages:
        """Of votes, each with the methods by place, by the rater at the same index."""
        rows = {rater: row for row, rater in enumerate(sorted(set(raters)))}
        counts: dict[tuple[int, frozenset[int]], dict[int, float]] = defaultdict(lambda: defaultdict(float))
        for places, rater in zip(votes, raters, strict=True):
            orders = list(product(*(permutations(place) for place in places)))
            for order in orders:
                left = [method for place in order for method in place]
                while len(left) > 1:
                    counts[left[0], frozenset(left)][rows[rater]] += 1 / len(orders)
                    left = left[1:]
        return cls._of_counts(methods, counts, len(rows))

    @classmethod
    def of_wins(cls, methods: int, wins: Sequence[tuple[int, int, float]]) -> Stages:
        """Of pairs alone: (winner, loser, how often), as if by one rater."""
        return cls._of_counts(methods, {(i, frozenset((i, j))): {0: count} for i, j, count in wins if count}, 1)

    @classmethod
    def _of_counts(
        cls, methods: int, counts: dict[tuple[int, frozenset[int]], dict[int, float]], raters: int
    ) -> Stages:
        among = np.zeros((len(counts), methods), dtype=bool)
        weights = np.zeros((raters, len(counts)))
        for stage, ((_, of), by_rater) in enumerate(counts.items()):
            among[stage, list(of)] = True
            for rater, count in by_rater.items():
                weights[rater, stage] = count
        return cls(np.array([chosen for chosen, _ in counts], dtype=np.int64), among, weights)

    def is_determined(self) -> bool:
        """Whether all strengths are finite and comparable: no group of methods won or lost all against the rest."""
        methods = self.among.shape[1]
        beats = np.zeros((methods, methods), dtype=bool)
        for chosen, among in zip(self.chosen, self.among, strict=True):
            beats[chosen] |= among
        return int(connected_components(beats, connection="strong")[0]) == 1


def fit(stages: Stages, weights: Array) -> Array:
    """(B, K): the strengths of maximum likelihood for each of B `weights` (B, S) of the stages; their mean is 0."""
    strengths = np.zeros((len(weights), stages.among.shape[1]))
    won = weights @ np.eye(strengths.shape[1])[stages.chosen]
    value = _likelihood(stages, weights, won, strengths)
    for _ in range(_ITERATIONS):
        shares = _shares(stages, strengths)
        gradient = won - np.einsum("bs,bsk->bk", weights, shares) - RIDGE * strengths
        step = np.linalg.solve(_curvature(weights, shares), gradient[..., None])[..., 0]
        # Halved until nothing gets worse; it hardly ever is.
        for _ in range(30):
            trial = np.clip(strengths + step, -_FARTHEST, _FARTHEST)
            reached = _likelihood(stages, weights, won, trial)
            worse = reached < value - 1e-9 * np.abs(value)
            if not worse.any():
                break
            step[worse] /= 2
        moved = float(np.abs(trial - strengths).max())
        strengths, value = trial, reached
        if moved < 1e-11:
            break
    centred: Array = strengths - strengths.mean(1, keepdims=True)
    return centred


def sandwich(stages: Stages, strengths: Array) -> Array:
    """(K, K): the covariance of the strengths (K,) over raters, without a bootstrap (Liang and Zeger 1986).

    For planning, where thousands of studies are simulated.
    """
    shares = _shares(stages, strengths[None])[0]
    scores = stages.weights @ (np.eye(len(strengths))[stages.chosen] - shares)
    # A ridge that holds their mean at 0: without it the curvature has no inverse.
    bread = np.linalg.inv(_curvature(stages.weights.sum(0)[None], shares[None])[0] + np.ones((len(strengths),) * 2))
    raters = len(scores)
    covariance: Array = raters / max(raters - 1, 1) * bread @ (scores.T @ scores) @ bread
    return covariance


@dataclass(frozen=True)
class Strength:
    """Of one method."""

    value: float
    """Log-odds against a method of mean strength; differences of two are log-odds of one against the other."""
    low: float
    high: float
    """The limits of its interval; NaN with fewer than two raters."""


def strengths_of(stages: Stages, *, seed: int, level: float = 0.95, samples: int = 1_000) -> list[Strength]:
    """Every method's strength with a bootstrap interval over raters, a function of votes and seed alone.

    The interval is the estimate plus and minus Student's quantile (raters - 1 degrees of freedom) times the bootstrap's
    standard error, with the correction for drawing from a sample: percentiles are too narrow for the dozen raters that
    studies have.
    """
    values = fit(stages, stages.weights.sum(0)[None])[0]
    raters = len(stages.weights)
    if raters < 2:
        return [Strength(float(value), math.nan, math.nan) for value in values]
    drawn = resampled(raters, samples, seed)
    error = fit(stages, drawn @ stages.weights).std(0, ddof=1) * math.sqrt(raters / (raters - 1))
    reach = float(student.ppf(0.5 + level / 2, raters - 1)) * error
    return [Strength(float(v), float(v - r), float(v + r)) for v, r in zip(values, reach, strict=True)]


def resampled(raters: int, samples: int, seed: int) -> Array:
    """(samples, raters): how often each rater was drawn, with replacement, in each sample."""
    drawn = integers(raters, seed, _BOOTSTRAP_STREAM, np.arange(samples)[:, None], np.arange(raters))
    return np.stack([np.bincount(row, minlength=raters) for row in drawn]).astype(np.float64)


def _shares(stages: Stages, strengths: Array) -> Array:
    """(B, S, K): the probability of each choice."""
    odds = np.exp(strengths)[:, None] * stages.among
    shares: Array = odds / odds.sum(2, keepdims=True)
    return shares


def _likelihood(stages: Stages, weights: Array, won: Array, strengths: Array) -> Array:
    totals = np.log(np.exp(strengths) @ stages.among.T)
    value: Array = (won * strengths).sum(1) - (weights * totals).sum(1) - RIDGE / 2 * (strengths**2).sum(1)
    return value


def _curvature(weights: Array, shares: Array) -> Array:
    """(B, K, K): minus the second derivatives of the likelihood."""
    weighted = weights[..., None] * shares
    diagonal = np.einsum("bsk,kl->bkl", weighted, np.eye(shares.shape[2]))
    products: Array = np.swapaxes(weighted, 1, 2) @ shares
    curvature: Array = diagonal - products + RIDGE * np.eye(shares.shape[2])
    return curvature
