"""What the networks hand to the training step: the words that models and losses have in common."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Reading(NamedTuple):
    """The distribution of z that a reader finds in N real pictures with their texts (models/reader.py)."""

    mu: Tensor
    """(N, noise_dim): its mean."""

    log_sigma: Tensor
    """(N, noise_dim): log of its standard deviation."""


class Fakes(NamedTuple):
    """What a generator makes of N texts."""

    image: Tensor
    """(N, 3, S, S) in [-1, 1]."""

    mu: Tensor
    """(N, condition_dim): mean of the distribution that this stage drew its text condition from."""

    log_sigma: Tensor
    """(N, condition_dim): log of its standard deviation. Where nothing was drawn (no conditioning augmentation, or
    no text in Stage-II) `mu` and `log_sigma` are both 0: the prior itself, whose KL divergence is exactly 0."""

    low_resolution: Tensor | None
    """(N, 3, 64, 64) in [-1, 1]: the Stage-I image that a Stage-II generator started from; None in Stage-I."""

    rebuilt: Tensor | None = None
    """(N, 3, S, S) in [-1, 1]: what a Stage-II generator made of pictures that it was given beside, shrunk to Stage-I's
    size; None without."""

    reading: Reading | None = None
    """Of the rows whose z was read off their pictures; None where no row is read."""


class Logits(NamedTuple):
    """A discriminator's opinion of N pairs as logits: above 0 means "real and matching"."""

    conditional: Tensor
    """(N,): is it a real image AND does the text belong to it?"""

    unconditional: Tensor | None
    """(N,): is it a real image? Only the `pytorch` recipe asks, in Stage-II."""


class Judgement(NamedTuple):
    """A discriminator's opinion of the three pairs of an update, N rows each."""

    real: Logits
    """Of real pictures with their texts."""

    wrong: Logits
    """Of real pictures with texts of another class."""

    fake: Logits
    """Of generated pictures with their texts."""

    texts: Tensor | None
    """(N, 1 + P) logits by which real pictures pick their text: its own, then those of the pool. None where the
    discriminator has no contrastive head."""

    squared_slopes: Tensor | None = None
    """(N,): the squared length of the gradient of `real` by each picture and its condition; None where it has no price.
    It can be differentiated again."""
