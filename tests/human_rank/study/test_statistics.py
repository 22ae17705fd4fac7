"""The report's numbers against worked examples and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, friedmanchisquare

from stackgan_dist.human_rank.study.statistics import holm, kendalls_w, mean_ranks, preferences


def _rankings(votes: int, methods: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.array([rng.permutation(methods) + 1 for _ in range(votes)], dtype=np.float64)


def test_mean_ranks_and_their_errors() -> None:
    ranks = np.array([[1, 2, 3], [1, 3, 2], [2, 1, 3], [1, 2, 3]], dtype=np.float64)
    first, second, third = mean_ranks(ranks, np.array([0, 0, 7, 7]))
    assert (first.mean, second.mean, third.mean) == (1.25, 2.0, 2.75)
    assert first.error == pytest.approx(0.25)  # deviations 1/4, 1/4, 3/4, 1/4: std 0.5 over sqrt(4)
    assert first.error_over_raters == pytest.approx(0.25)  # raters' means 1 and 1.5: std 0.354 over sqrt(2)
    assert second.error_over_raters == pytest.approx(0.5)  # 2.5 and 1.5
    alone = mean_ranks(ranks[:1], np.array([0]))
    assert math.isnan(alone[0].error)
    assert math.isnan(alone[0].error_over_raters)


def test_kendalls_w_is_friedmans_statistic_in_another_scale() -> None:
    ranks = _rankings(9, 4)
    chi2 = friedmanchisquare(*ranks.T).statistic
    assert kendalls_w(ranks) == pytest.approx(chi2 / (9 * 3))


def test_kendalls_w_with_ties_is_friedmans_too() -> None:
    means = np.array([[1.5, 1.5, 3.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [1.0, 2.5, 2.5]])
    assert kendalls_w(means) == pytest.approx(friedmanchisquare(*means.T).statistic / (4 * 2))


def test_the_ends_of_kendalls_w() -> None:
    assert kendalls_w(np.array([[1.0, 2, 3]] * 5)) == pytest.approx(1)
    assert kendalls_w(np.array([[1.0, 2, 3], [3, 2, 1]])) == pytest.approx(0)
    assert math.isnan(kendalls_w(np.array([[1.0, 2, 3]])))
    assert math.isnan(kendalls_w(np.full((3, 3), 2.0)))


def test_preferences_count_sentences_by_their_majority() -> None:
    a_first, b_first = [1, 2], [2, 1]
    ranks = np.array([a_first, a_first, b_first, a_first, b_first, b_first, a_first], dtype=np.float64)
    questions = np.array([0, 0, 0, 1, 1, 2, 3])  # 0: A by 2 to 1; 1: a tie; 2: B; 3: A
    (pair,) = preferences(ranks, questions)
    assert pair.share == pytest.approx(4 / 7)
    assert (pair.for_first, pair.for_second) == (2, 1)
    assert pair.p_value == pytest.approx(binomtest(2, 3).pvalue)


def test_many_votes_on_one_sentence_are_one_witness() -> None:
    (pair,) = preferences(np.array([[1.0, 2]] * 500), np.zeros(500, dtype=np.int64))
    assert pair.p_value == 1.0


def test_clear_preferences_are_significant_and_random_ones_are_not() -> None:
    (clear,) = preferences(np.array([[1.0, 2]] * 12), np.arange(12))
    assert clear.p_value == pytest.approx(2 * 0.5**12)
    assert len(preferences(_rankings(200, 4), np.arange(200))) == 6
    assert all(pair.p_corrected > 0.05 for pair in preferences(_rankings(200, 4), np.arange(200)))


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
