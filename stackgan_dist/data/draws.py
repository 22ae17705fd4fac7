"""The purposes of a run's random numbers, each a stream of its own; what the rows of a step draw is in row_draws.py."""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class Stream(IntEnum):
    """One number per purpose keeps the draws of a row independent of each other. Never renumber: runs depend on it."""

    SHARD_ORDER = 0
    SAMPLE_ORDER = 1
    CAPTION = 2
    CROP_LEFT = 3
    CROP_TOP = 4
    FLIP = 5
    WRONG_SAMPLE = 6
    WRONG_CAPTION = 7
    NOISE = 8
    CONDITIONING = 9
    SCORE_SAMPLE = 10
    SCORE_CAPTION = 11
    SCORE_NOISE = 12
    SCORE_CONDITIONING = 13
    PARTNER_SAMPLE = 14
    PARTNER_CAPTION = 15
    BETWEEN_NOISE = 16
    BETWEEN_CONDITIONING = 17
    SCORE_REAL = 18
    SCORE_CANDIDATE = 19
    SCORE_WRONG = 20
    HELD_OUT = 21
    CLASSIFIER_CROP = 22
    NOISE_PICTURE = 23
    EMBEDDING_CLASS = 24
    EMBEDDING_PICTURE = 25
    EMBEDDING_VIEW = 26
    EMBEDDING_CAPTION = 27
    EMBEDDING_DROPOUT = 28
    FINE_TUNING_ORDER = 29


def pick(point: float, among: int) -> int:
    """The choice, in 0..among - 1, that a point stands for."""
    return int(point * among)
