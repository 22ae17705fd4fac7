"""Adaptive studies: ask about the pair of neighbours that is least clear, until the order of all methods is clear.

A pair is clear when its votes would be improbable under a fair coin, by a test that may be looked at after every
vote: with k of n votes for one side, the chance that a coin of unknown bias (uniform) gives this sequence, over that of
a fair coin, 2^n k! (n - k)! / (n + 1)!, exceeds (pairs / error) at any time with probability at most error / pairs
(Ville 1939; Robbins 1970). So the certainty holds although the study stops when it likes what it sees. A tie is half a
vote for each side. What was asked is a function of the votes alone, and noted before it is shown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.human_rank.study.folder import Study
from stackgan_dist.human_rank.study.order import Task, placed
from stackgan_dist.human_rank.study.protocol import Aspect
from stackgan_dist.human_rank.study.votes import Vote
from stackgan_dist.randomness import permutation

_FIRST_ROUND = 2
"""Votes on every pair before neighbours alone are asked about."""
_PAIR_STREAM = 0x5108


@dataclass(frozen=True)
class Standing:
    """What the votes on one aspect say so far."""

    order: tuple[int, ...]
    """The methods, best first."""
    open_pairs: tuple[tuple[int, int], ...]
    """What is still to be asked about, most pressing first; empty: the order is clear, or as clear as it gets."""
    tied: tuple[tuple[int, int], ...]
    """Neighbours that the most votes allowed did not tell apart."""


def evidence(first: float, second: float) -> float:
    """The logarithm of the factor by which `first` against `second` votes speak against a fair coin."""
    n = first + second
    return n * math.log(2) + math.lgamma(first + 1) + math.lgamma(second + 1) - math.lgamma(n + 2)


def standing(wins: NDArray[np.float64], certainty: float, most_per_pair: int) -> Standing:
    """Where a study stands whose `wins` (methods, methods) have the votes for the row against the column."""
    methods = len(wins)
    votes = wins + wins.T
    pairs = list(combinations(range(methods), 2))
    unheard = sorted((pair for pair in pairs if votes[pair] < _FIRST_ROUND), key=lambda pair: votes[pair])
    order = tuple(int(i) for i in np.argsort(-_scores(wins), kind="stable"))
    if unheard:
        return Standing(order, tuple(unheard), ())
    needed = math.log(len(pairs) / (1 - certainty))
    open_pairs: list[tuple[int, int]] = []
    tied: list[tuple[int, int]] = []
    for better, worse in pairwise(order):
        against = evidence(wins[better, worse], wins[worse, better])
        if wins[better, worse] > wins[worse, better] and against >= needed:
            continue
        (tied if votes[better, worse] >= most_per_pair else open_pairs).append((better, worse))
    return Standing(order, tuple(sorted(open_pairs, key=lambda pair: votes[pair])), tuple(tied))


def wins_of(
    study: Study, votes: Sequence[Vote], asked: Mapping[tuple[int, int], Task], aspect: Aspect
) -> NDArray[np.float64]:
    """(methods, methods): the standing votes for the row against the column."""
    wins = np.zeros((len(study.methods),) * 2)
    for vote in votes:
        task = asked.get((vote.rater, vote.position))
        about = task is not None and task.aspect == aspect and not study.questions[vote.question].check
        if vote.undone is None and about:
            first, second = vote.ranking
            share = 0.5 if len(vote.places) == 1 else 1.0
            wins[first, second] += share
            wins[second, first] += 1 - share
    return wins


def pressing(
    study: Study, votes: Sequence[Vote], asked: Mapping[tuple[int, int], Task]
) -> list[tuple[Aspect, tuple[int, int]]]:
    """What is still to be asked about, every aspect's most pressing pair first; empty when everything is clear."""
    protocol = study.protocol
    return [
        (aspect, pair)
        for aspect in protocol.aspects
        for pair in standing(
            wins_of(study, votes, asked, aspect), protocol.certainty, protocol.most_per_pair
        ).open_pairs
    ]


def next_task(
    study: Study, rater: int, position: int, votes: Sequence[Vote], asked: Mapping[tuple[int, int], Task]
) -> Task | None:
    """What rater number `rater` is asked at `position`; None when everything is clear.

    The sentence is one that was asked least of this pair, and that this rater has not seen with it.
    """
    unclear = pressing(study, votes, asked)
    if not unclear:
        return None
    # Raters who are asked at the same time are spread over what is open.
    aspect, pair = unclear[rater % len(unclear)]
    of_pair = [
        (who, task.question)
        for (who, _), task in asked.items()
        if set(task.shown) == set(pair) and task.aspect == aspect
    ]
    heard, seen = Counter(question for _, question in of_pair), {question for who, question in of_pair if who == rater}
    deck = permutation(study.sentences, study.seed, _PAIR_STREAM, *pair).tolist()
    question = min(deck, key=lambda one: (one in seen, heard[one]))
    return Task(question, placed(study, rater, position, pair), aspect)


def _scores(wins: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bradley-Terry strengths, with half a vote more for each side of every pair, so that all are finite."""
    from stackgan_dist.human_rank.study.strength import Stages, fit

    methods = len(wins)
    smoothed = wins + 0.5 * (1 - np.eye(methods))
    pairs = [(i, j) for i in range(methods) for j in range(methods) if i != j]
    stages = Stages.of_wins(methods, [(i, j, smoothed[i, j]) for i, j in pairs])
    scores: NDArray[np.float64] = fit(stages, stages.weights)[0]
    return scores
