"""What rankings say: mean ranks, agreement, preferences. Pure arithmetic on arrays of ranks (1 is best)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, rankdata

Ranks = NDArray[np.float64]
"""(votes, methods): the rank that each vote gives each method, a mean one to those it ties; NaN: it was not shown."""


@dataclass(frozen=True)
class MeanRank:
    """The mean rank of one method."""

    mean: float
    """From 1 to the number of methods."""
    error: float
    """Standard error over votes, taken as independent; NaN for a single vote."""
    error_over_raters: float
    """Standard error of the raters' own means: larger where people differ in taste. NaN for a single rater.

    Both are of the votes that were about the method."""


def mean_ranks(ranks: Ranks, raters: NDArray[np.int64]) -> list[MeanRank]:
    """One for each method; `raters` (votes,) says whose vote each is."""
    means = []
    for column in ranks.T:
        known = ~np.isnan(column)
        own, whose = column[known], raters[known]
        of_raters = np.array([own[whose == rater].mean() for rater in np.unique(whose)])
        mean = float(own.mean()) if len(own) else math.nan
        means.append(MeanRank(mean, _standard_error(own), _standard_error(of_raters)))
    return means


def kendalls_w(ranks: Ranks) -> float:
    """Kendall and Babington Smith's coefficient of concordance of m judges (rows): 0 none, 1 complete.

    Rows are ranked again, so means are welcome; equal values share their mean rank, with the usual correction. NaN
    for a single judge, or when every judge is indifferent.
    """
    judges, methods = ranks.shape
    if judges < 2:
        return math.nan
    ranked = rankdata(ranks, axis=1)
    spread = float(((ranked.sum(axis=0) - judges * (methods + 1) / 2) ** 2).sum())
    ties = sum(float((count**3 - count).sum()) for row in ranked for _, count in [np.unique(row, return_counts=True)])
    most = (judges**2 * (methods**3 - methods) - judges * ties) / 12
    return spread / most if most > 0 else math.nan


@dataclass(frozen=True)
class Preference:
    """How one method fares against another."""

    first: int
    second: int
    share: float
    """Of the votes on both, those that place `first` before `second`, and half of those that tie them."""
    for_first: int
    """Sentences whose raters mostly do."""
    for_second: int
    p_value: float
    """Two-sided exact sign test over these sentences."""
    p_corrected: float
    """The same after Holm's correction for the number of pairs."""


def preferences(ranks: Ranks, questions: NDArray[np.int64]) -> list[Preference]:
    """Every pair of methods; `questions` (votes,) says which sentence each vote is about.

    The unit of the test is the sentence, decided by the majority of its raters (a tie counts for neither): votes on
    one sentence see the same pictures and are not independent.
    """
    methods = ranks.shape[1]
    found = []
    for first in range(methods):
        for second in range(first + 1, methods):
            both = ~np.isnan(ranks[:, second] - ranks[:, first])
            wins, about = np.sign(ranks[both, second] - ranks[both, first]), questions[both]
            majorities = np.array([np.sign(wins[about == question].sum()) for question in np.unique(about)])
            ups, downs = int((majorities > 0).sum()), int((majorities < 0).sum())
            p = float(binomtest(ups, ups + downs).pvalue) if ups + downs else 1.0
            share = float((wins > 0).mean() + (wins == 0).mean() / 2) if len(wins) else math.nan
            found.append((first, second, share, ups, downs, p))
    corrected = holm([row[-1] for row in found])
    return [Preference(*row, p_corrected) for row, p_corrected in zip(found, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): each value times the number of hypotheses not yet rejected."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for done, number in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, p_values[number] * (len(p_values) - done)))
        corrected[number] = largest
    return corrected


def _standard_error(values: NDArray[np.float64]) -> float:
    return math.nan if len(values) < 2 else float(values.std(ddof=1)) / math.sqrt(len(values))
