"""What a rater sees, in which order: a pure function of the study and the rater's number.

Nothing of it is stored, so nothing of it can be lost: a killed server shows the same sets in the same places. (What an
adaptive study asks depends on the votes as well, see adaptive.py; where its sets stand is decided here.)
"""

from __future__ import annotations

from enum import IntEnum
from itertools import combinations
from typing import NamedTuple

from stackgan_dist.human_rank.study.folder import Study
from stackgan_dist.human_rank.study.protocol import Aspect
from stackgan_dist.randomness import permutation


class _Stream(IntEnum):
    # Keeps these hashes apart from a run's (randomness.py counts from 0). Never renumber: votes depend on it.
    SENTENCES = 0x5101
    OF_RATER = 0x5102
    CHECKS = 0x5103
    LABELS = 0x5104
    ROTATIONS = 0x5105
    SUBSETS = 0x5106
    PLACES = 0x5107


class Task(NamedTuple):
    """One page."""

    question: int
    shown: tuple[int, ...]
    """The methods, in the order of their places on the page."""
    aspect: Aspect


def tasks_asked(study: Study, rater: int) -> int:
    """How many pages a rater is asked for, at most where it depends on the votes."""
    pages = len(questions_of(study, rater))
    return pages if study.protocol.adaptive else pages * len(study.protocol.aspects)


def task_of(study: Study, rater: int, position: int) -> Task:
    """The page at a rater's `position`; not for the sentences of adaptive studies.

    Where several things are asked about, all of them are asked about the same sets, one after the other, in an order
    that changes with rater and sentence. Where fewer sets than methods are shown, every choice of them comes up equally
    often over all raters, give or take one.
    """
    aspects = study.protocol.aspects
    number, turn = (position, rater) if study.protocol.adaptive else divmod(position, len(aspects))
    question = questions_of(study, rater)[number]
    aspect = aspects[(turn + rater + number) % len(aspects)]
    if study.at_once == len(study.methods) and aspects == ("overall",):
        return Task(question, tuple(slots_of(study, rater, position)), aspect)
    if study.questions[question].check:
        chosen = tuple(range(study.at_once))  # the real one among them
    else:
        subsets = list(combinations(range(len(study.methods)), study.at_once))
        block, within = divmod(rater * len(questions_of(study, rater)) + number, len(subsets))
        chosen = subsets[int(permutation(len(subsets), study.seed, _Stream.SUBSETS, block)[within])]
    return Task(question, placed(study, rater, number, chosen), aspect)


def placed(study: Study, rater: int, position: int, chosen: tuple[int, ...]) -> tuple[int, ...]:
    """The methods `chosen` in the order of their places on the page."""
    return tuple(chosen[int(i)] for i in permutation(len(chosen), study.seed, _Stream.PLACES, rater, position))


def questions_of(study: Study, rater: int) -> list[int]:
    """The questions of rater number `rater` (from 0), in the order they are asked.

    The sentences are dealt out in hands, one to a rater, and from the beginning again: each is ranked equally often,
    give or take one, and raters who share a hand can be compared. Every rater has a hand in an order of their own,
    with the attention checks spread over it.
    """
    deck = permutation(study.sentences, study.seed, _Stream.SENTENCES)
    hands = -(-study.sentences // study.questions_per_rater)
    hand = deck[rater % hands :: hands]
    asked = [int(hand[i]) for i in permutation(len(hand), study.seed, _Stream.OF_RATER, rater)]
    checks = permutation(study.checks, study.seed, _Stream.CHECKS, rater)
    for number, check in enumerate(checks):
        # In the middle of as many equal stretches as there are checks; never at the very first, where all look.
        place = max(1, (2 * number + 1) * len(hand) // (2 * study.checks)) + number
        asked.insert(place, study.sentences + int(check))
    return asked


def slots_of(study: Study, rater: int, position: int) -> list[int]:
    """Which method stands in each place of the page at a rater's question `position`.

    Balanced: in every K consecutive questions of a rater (K methods) each method stands once in each place. Such a
    block holds the K rotations of a permutation of its own, in an order of their own.
    """
    methods = len(study.methods)
    block, within = divmod(position, methods)
    labels = permutation(methods, study.seed, _Stream.LABELS, rater, block)
    rotation = int(permutation(methods, study.seed, _Stream.ROTATIONS, rater, block)[within])
    return [int(labels[(slot + rotation) % methods]) for slot in range(methods)]
