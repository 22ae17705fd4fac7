"""How many raters and sentences a study needs: the power of studies that are simulated with raters of known taste.

A simulated rater's strengths are the methods' own plus a taste of theirs, and those of a sentence plus what its
pictures happen to be. Two neighbours are told apart where the interval of their difference, over raters, leaves out 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from stackgan_dist.human_rank.study.strength import Stages, fit, sandwich

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Supposed:
    """What is supposed of people and pictures."""

    preference: float
    """The share of votes for the better of two neighbours, between 0.5 and 1."""
    taste: float
    """The standard deviation over raters of a method's log-odds."""
    luck: float
    """The same over sentences."""


@dataclass(frozen=True)
class Power:
    """Of one size of a study."""

    raters: int
    sentences: int
    votes: int
    neighbours: float
    """The share of neighbouring methods that are told apart, in the right order."""
    all: float
    """The share of studies that tell all neighbours apart."""


def simulate(
    strengths: Array,
    raters: int,
    sentences: int,
    per_rater: int,
    at_once: int,
    taste: float,
    luck: float,
    seed: int,
) -> tuple[list[tuple[tuple[int, ...], ...]], list[int], list[int]]:
    """Votes of simulated raters: the places, the rater and the sentence of each. `strengths` (K,) are log-odds."""
    random = np.random.default_rng(seed)
    methods = len(strengths)
    tastes = random.normal(0, taste, (raters, methods)) if taste else np.zeros((raters, methods))
    pictures = random.normal(0, luck, (sentences, methods)) if luck else np.zeros((sentences, methods))
    votes: list[tuple[tuple[int, ...], ...]] = []
    whose: list[int] = []
    which: list[int] = []
    for rater in range(raters):
        hand = (rater * per_rater + np.arange(per_rater)) % sentences
        noise = random.gumbel(size=(per_rater, methods))  # the order of strength + Gumbel noise is Plackett-Luce's
        for number, sentence in enumerate(hand.tolist()):
            shown = random.permutation(methods)[:at_once]
            value = strengths + tastes[rater] + pictures[sentence] + noise[number]
            votes.append(tuple((int(method),) for method in shown[np.argsort(-value[shown])]))
            whose.append(rater)
            which.append(sentence)
    return votes, whose, which


def power(
    supposed: Supposed,
    methods: int,
    at_once: int,
    sizes: Sequence[tuple[int, int]],
    per_rater: int,
    *,
    studies: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Iterator[Power]:
    """The power of studies of each of the `sizes` (raters, sentences); a rater answers `per_rater` pages, or all."""
    step = math.log(supposed.preference / (1 - supposed.preference))
    strengths = -step * np.arange(methods, dtype=np.float64)
    for raters, sentences in sizes:
        pages = min(per_rater, sentences)
        told = np.zeros((studies, methods - 1), dtype=bool)
        for study in range(studies):
            votes, whose, _ = simulate(
                strengths, raters, sentences, pages, at_once, supposed.taste, supposed.luck, seed + study
            )
            stages = Stages.of_votes(methods, votes, whose)
            found = fit(stages, stages.weights.sum(0)[None])[0]
            covariance = sandwich(stages, found)
            reach = student.ppf(0.5 + level / 2, raters - 1)
            for first in range(methods - 1):
                pair = covariance[first : first + 2, first : first + 2]
                error = math.sqrt(max(0.0, pair[0, 0] + pair[1, 1] - 2 * pair[0, 1]))
                told[study, first] = found[first] - found[first + 1] > reach * error
        yield Power(raters, sentences, raters * pages, float(told.mean()), float(told.all(1).mean()))
