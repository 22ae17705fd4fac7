"""Strengths by maximum likelihood: against an independent computation, and intervals against known truths."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import minimize

from stackgan_dist.human_rank.study.plan import Supposed, power, simulate
from stackgan_dist.human_rank.study.strength import Stages, fit, resampled, sandwich, strengths_of

TRUE = np.array([0.8, 0.3, -0.2, -0.9])


def _by_scipy(methods: int, votes: list[tuple[tuple[int, ...], ...]]) -> np.ndarray:
    """The maximum of the same likelihood, written down rank by rank, by scipy; ties as the mean over their orders."""

    def order_likelihood(t: np.ndarray, order: list[int]) -> float:
        return float(sum(t[order[i]] - np.log(np.exp(t[order[i:]]).sum()) for i in range(len(order) - 1)))

    def loss(free: np.ndarray) -> float:
        t, total = np.concatenate([[0.0], free]), 0.0
        for places in votes:
            orders: list[list[int]] = [[]]
            for place in places:
                orders = [[*before, *tail] for before in orders for tail in permutations(place)]
            total += sum(order_likelihood(t, order) for order in orders) / len(orders)
        return -total

    found = minimize(loss, np.zeros(methods - 1), method="BFGS", options={"gtol": 1e-9})
    t = np.concatenate([[0.0], found.x])
    return np.asarray(t - t.mean())


@pytest.mark.parametrize(("at_once", "ties"), [(2, False), (3, False), (4, False), (2, True), (4, True)])
def test_strengths_equal_those_of_an_independent_computation(at_once: int, ties: bool) -> None:
    votes, raters, _ = simulate(TRUE, 6, 10, 10, at_once, 0.2, 0.0, seed=at_once)
    if ties:  # every third vote has its first two in one place
        votes = [(places[0] + places[1], *places[2:]) if i % 3 == 0 else places for i, places in enumerate(votes)]
    stages = Stages.of_votes(4, votes, raters)
    assert stages.is_determined()
    ours = fit(stages, stages.weights.sum(0)[None])[0]
    assert ours == pytest.approx(_by_scipy(4, votes), abs=2e-6)
    assert ours.sum() == pytest.approx(0, abs=1e-12)


def test_two_methods_have_the_logit_of_their_share() -> None:
    votes = [((0,), (1,))] * 30 + [((1,), (0,))] * 10
    stages = Stages.of_votes(2, votes, [0] * 40)
    first, second = fit(stages, stages.weights)[0]
    assert first - second == pytest.approx(np.log(3), abs=1e-8)


def test_a_method_that_always_wins_has_no_strength() -> None:
    assert not Stages.of_votes(2, [((0,), (1,))] * 5, [0] * 5).is_determined()
    assert not Stages.of_votes(3, [((0,), (1,)), ((1,), (0,))], [0, 0]).is_determined()
    assert Stages.of_votes(2, [((0, 1),)], [0]).is_determined()


def test_intervals_cover_the_truth(capsys: pytest.CaptureFixture[str]) -> None:
    """95 % intervals over 12 raters of different taste. Those of one study are not independent: 40 may be 4 % off."""
    covered = []
    for study in range(40):
        votes, raters, _ = simulate(TRUE, 12, 30, 15, 4, 0.3, 0.0, seed=1_000 + study)
        found = strengths_of(Stages.of_votes(4, votes, raters), seed=study, samples=100)
        covered += [one.low <= true <= one.high for one, true in zip(found, TRUE - TRUE.mean(), strict=True)]
    with capsys.disabled():
        print(f"\n95 % intervals of strengths cover {np.mean(covered):.1%} of {len(covered)} true ones")
    assert 0.90 <= np.mean(covered) < 1


def test_intervals_are_a_function_of_votes_and_seed() -> None:
    votes, raters, _ = simulate(TRUE, 5, 10, 10, 2, 0.3, 0.0, seed=3)
    stages = Stages.of_votes(4, votes, raters)
    assert strengths_of(stages, seed=1, samples=50) == strengths_of(stages, seed=1, samples=50)
    assert strengths_of(stages, seed=1, samples=50) != strengths_of(stages, seed=2, samples=50)
    one_rater = Stages.of_votes(4, votes, [0] * len(votes))
    assert np.isnan(strengths_of(one_rater, seed=1)[0].low)
    drawn = resampled(5, 400, 0)
    assert drawn.sum(1).tolist() == [5.0] * 400
    assert drawn.mean() == pytest.approx(1, abs=0.01)


def test_the_sandwich_agrees_with_the_bootstrap() -> None:
    votes, raters, _ = simulate(TRUE, 40, 30, 15, 3, 0.4, 0.0, seed=5)
    stages = Stages.of_votes(4, votes, raters)
    strengths = fit(stages, stages.weights.sum(0)[None])[0]
    by_formula = np.sqrt(np.diag(sandwich(stages, strengths)))
    by_bootstrap = fit(stages, resampled(40, 300, 0) @ stages.weights).std(0, ddof=1)
    assert by_formula == pytest.approx(by_bootstrap, rel=0.15)


def test_power_grows_with_raters_and_with_the_difference() -> None:
    sizes = [(4, 10), (16, 10)]
    few, many = power(Supposed(0.65, 0.2, 0.0), 3, 2, sizes, 10, studies=30)
    assert few.votes == 40
    assert few.neighbours < many.neighbours
    assert all(one.all <= one.neighbours for one in (few, many))
    (clear,) = power(Supposed(0.9, 0.2, 0.0), 3, 3, [(12, 10)], 10, studies=20)
    assert clear.all > 0.95
