"""What the two players of a GAN play for: pure functions of the discriminator's logits.

All are means over the rows given. Half-precision input is computed in float32; float32 and float64 stay as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from stackgan_dist.errors import UserError
from stackgan_dist.importable import known_part, make_part
from stackgan_dist.models.config import LOSSES
from stackgan_dist.models.outputs import Fakes, Judgement, Logits


class SlopePenalty(NamedTuple):
    """What a discriminator pays for being steep at real pictures with their own texts: weight * mean of slope^power.

    The slope of a row is the length of the gradient of its logit by its picture and its text.
    """

    weight: float
    power: float

    def __call__(self, squared_slopes: Tensor) -> Tensor:
        """Of squared slopes (N,); a power of 2 or more of them is smooth at 0, where a length is not."""
        return self.weight * at_least_float32(squared_slopes).pow(self.power / 2).mean()


class AdversarialLoss(Protocol):
    """The game of a discriminator and a generator; a family brings one, and `--training.loss` names another."""

    penalty: SlopePenalty | None
    """Where D pays for steepness: for discriminators without batch normalisation, which would couple the rows."""

    def discriminator(self, judged: Judgement) -> Tensor:
        """What D loses by its opinion of the three pairs, without the penalty: a scalar, the mean over the rows."""
        ...

    def generator(self, scores: Logits, fakes: Fakes, real: Tensor) -> Tensor:
        """What G loses by D's `scores` of its `fakes`, n rows or more: a scalar, the mean over the rows.

        `real` (n, 3, S, S) in [-1, 1] are the pictures of the first n texts, for a term of one's own.
        """
        ...


class PairLoss(ABC):
    """A loss that is made of one function of a logit for "real", one for "fake" and one for a fake that has to fool.

    Each takes logits (N,) of float32 or more and returns as many values. D's loss is that of the matching-aware
    discriminator: real + (wrong + fake) / 2. Where D also gave unconditional scores (`pytorch`, Stage-II), it is the
    mean of the two ways to be real plus the mean of the three ways to be fake; those of `wrong` are not used, for its
    images are real. G's loss is a sum over the heads that there are, not halved.
    """

    penalty: SlopePenalty | None = None

    @abstractmethod
    def real(self, logits: Tensor) -> Tensor:
        """What D loses where it should say "real"."""

    @abstractmethod
    def fake(self, logits: Tensor) -> Tensor:
        """What D loses where it should say "fake"."""

    @abstractmethod
    def fooling(self, logits: Tensor) -> Tensor:
        """What G loses where D should say "real"."""

    def discriminator(self, judged: Judgement) -> Tensor:
        """See AdversarialLoss."""
        real = self._mean(self.real, judged.real.conditional)
        wrong = self._mean(self.fake, judged.wrong.conditional)
        fake = self._mean(self.fake, judged.fake.conditional)
        if judged.real.unconditional is None or judged.fake.unconditional is None:
            return real + (wrong + fake) / 2
        called_real = real + self._mean(self.real, judged.real.unconditional)
        called_fake = wrong + fake + self._mean(self.fake, judged.fake.unconditional)
        return called_real / 2 + called_fake / 3

    def generator(self, scores: Logits, fakes: Fakes, real: Tensor) -> Tensor:
        """See AdversarialLoss."""
        loss = self._mean(self.fooling, scores.conditional)
        return loss if scores.unconditional is None else loss + self._mean(self.fooling, scores.unconditional)

    @staticmethod
    def _mean(of: Callable[[Tensor], Tensor], logits: Tensor) -> Tensor:
        return of(at_least_float32(logits)).mean()


class NonSaturating(PairLoss):
    """StackGAN's: cross-entropy with labels of 1 and 0.

    G maximises log D, as both of the authors' codes do; the paper prints log(1 - D).
    """

    def real(self, logits: Tensor) -> Tensor:
        """-log D."""
        return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="none")

    def fake(self, logits: Tensor) -> Tensor:
        """-log(1 - D)."""
        return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="none")

    def fooling(self, logits: Tensor) -> Tensor:
        """-log D."""
        return self.real(logits)


class Hinge(PairLoss):
    """The hinge loss (arXiv 1705.02894): D is content from a distance of 1 on, and G pushes without end."""

    def real(self, logits: Tensor) -> Tensor:
        """What is missing to 1."""
        return F.relu(1 - logits)

    def fake(self, logits: Tensor) -> Tensor:
        """What is missing to -1."""
        return F.relu(1 + logits)

    def fooling(self, logits: Tensor) -> Tensor:
        """The less the higher D's logit is."""
        return -logits


class MatchingAwareHinge(Hinge):
    """DF-GAN's: the hinge loss, and a matching-aware gradient penalty with k = 2 and p = 6 (arXiv 2008.05865, 3.3)."""

    penalty = SlopePenalty(weight=2.0, power=6.0)


def open_loss(name: str) -> AdversarialLoss:
    """The loss called `name`: one of config.LOSSES, or MODULE:CLASS; UserError when there is none."""
    if name in LOSSES:
        known: AdversarialLoss = known_part(LOSSES[name])()
        return known
    own: AdversarialLoss = make_part(name, AdversarialLoss, "--training.loss")
    if own.penalty is not None and not isinstance(own.penalty, SlopePenalty):
        raise UserError(
            f"--training.loss {name} has a penalty of type {type(own.penalty).__name__}; give a SlopePenalty"
        )
    return own


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
