"""Blind orders: balanced, different for every rater, and the same after a restart."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from human_rank.study.studies import make_study

from stackgan_dist.human_rank.study.order import questions_of, slots_of


@pytest.mark.parametrize("methods", [2, 3, 5])
def test_each_method_stands_equally_often_in_each_place(methods: int) -> None:
    study = make_study(methods=methods, sentences=4 * methods)
    for rater in range(5):
        seen = Counter(
            (slot, method)
            for position in range(4 * methods)
            for slot, method in enumerate(slots_of(study, rater, position))
        )
        assert set(seen.values()) == {4}
        assert len(seen) == methods**2


def test_orders_vary_over_raters_and_blocks_and_seeds() -> None:
    study = make_study(sentences=60)
    orders = [tuple(tuple(slots_of(study, rater, position)) for position in range(60)) for rater in range(20)]
    assert len(set(orders)) == 20
    assert len(set(orders[0])) == 6  # of three methods, every order there is
    assert orders[0] != tuple(tuple(slots_of(make_study(sentences=60, seed=1), 0, i)) for i in range(60))


def test_orders_are_pinned() -> None:
    """Votes depend on them: a study that was begun with one version must go on with the next."""
    study = make_study(checks=2)
    assert [slots_of(study, 3, position) for position in range(4)] == ORDERS
    assert questions_of(study, 3) == QUESTIONS


ORDERS = [[1, 2, 0], [2, 0, 1], [0, 1, 2], [0, 1, 2]]
QUESTIONS = [0, 8, 10, 7, 5, 2, 3, 6, 11, 9, 1, 4]


def test_sentences_are_dealt_out_evenly() -> None:
    study = make_study(sentences=50, per_rater=20)
    hands = [questions_of(study, rater) for rater in range(6)]
    assert {len(hand) for hand in hands} == {16, 17}
    asked = Counter(question for hand in hands for question in hand)
    assert asked == dict.fromkeys(range(50), 2)
    assert set(hands[0]) == set(hands[3])
    assert hands[0] != hands[3]


def test_attention_checks_are_spread_and_never_first() -> None:
    study = make_study(sentences=20, checks=3, per_rater=20)
    for rater in range(10):
        asked = questions_of(study, rater)
        assert sorted(asked) == list(range(23))
        places = [place for place, question in enumerate(asked) if question >= 20]
        assert places[0] > 0
        assert min(b - a for a, b in pairwise(places)) > 3
    assert sorted(questions_of(make_study(sentences=1, checks=2), 0)) == [0, 1, 2]
