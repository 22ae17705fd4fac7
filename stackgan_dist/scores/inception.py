"""Inception Score and Frechet distance as float64 sums over samples that are identified by number.

A sum does not care who adds what: ranks add the samples they have, one all-reduce (SUM) of `tensor` merges
them, and the result is the same on any number of ranks up to the order of float64 additions. Pure arithmetic,
nothing distributed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stackgan_dist.errors import UserError


@dataclass(frozen=True)
class InceptionScore:
    """exp(E_x KL(p(y|x) || p(y))) (Salimans et al., arXiv 1606.03498, section 4): from 1 to the number of classes."""

    mean: float
    """Mean over the splits."""
    std: float
    """Population standard deviation over the splits, as in the original protocol; NaN for one split, which has none."""
    samples: int
    splits: int
    per_split: tuple[float, ...]

    def __str__(self) -> str:
        spread = "" if self.splits == 1 else f" ± {self.std:.2f}"
        return f"{self.mean:.2f}{spread} ({self.samples:,} samples, {self.splits} split{'s'[: self.splits > 1]})"


class InceptionScoreSums:
    """The sums behind one Inception Score of `samples` samples in `splits` consecutive blocks of sample numbers.

    The StackGAN paper (arXiv 1612.03242, section 4.1) has 30,000 samples, its authors' score code 10 splits. The
    score grows with the samples of a split, so compare scores of equal numbers only.

    Raises UserError for fewer samples than splits.
    """

    tensor: Tensor
    """(splits, classes + 3), float64: sums of p, then of sum_c p log p (nats), of 1, of the sample number.

    All-reduce it with SUM, in place, before `result()`.
    """

    def __init__(self, samples: int, splits: int, classes: int) -> None:
        if splits < 1 or samples < splits:
            raise UserError(
                f"an Inception Score of {samples} samples in {splits} splits was asked for, but there must be at least "
                f"1 split and 1 sample in each: ask for more samples (the paper has 30000 in 10 splits) or fewer splits"
            )
        self.samples, self.splits, self.classes = samples, splits, classes
        self.tensor = torch.zeros(splits, classes + 3, dtype=torch.float64)

    def split_of(self, sample_numbers: Tensor) -> Tensor:
        """The split (N,) of every sample.

        Split i has the numbers from i * samples // splits up to, not including, (i + 1) * samples // splits, also
        where samples is no multiple of splits.
        """
        return ((sample_numbers + 1) * self.splits - 1) // self.samples

    def add(self, sample_numbers: Tensor, logits: Tensor) -> None:
        """Add samples, in any order and grouping; every number in [0, samples) must be added once, by any rank.

        sample_numbers: (N,) integers. logits: (N, classes), any float dtype; the softmax is taken in float64.
        """
        if logits.shape != (len(sample_numbers), self.classes):
            raise ValueError(
                f"{len(sample_numbers)} samples of {self.classes} classes, but logits {tuple(logits.shape)}"
            )
        if ((sample_numbers < 0) | (sample_numbers >= self.samples)).any():
            raise ValueError(f"sample numbers must be in [0, {self.samples})")
        self.tensor = self.tensor.to(logits.device)  # sums are made where the classifier computes
        numbers = sample_numbers.to(logits.device)
        log_p = logits.detach().to(self.tensor).log_softmax(dim=1)
        p = log_p.exp()
        rows = [p, (p * log_p).sum(1, keepdim=True), torch.ones_like(p[:, :1]), numbers[:, None].to(p)]
        # Not index_add_, which adds on CUDA in the order in which threads arrive.
        of_split = torch.nn.functional.one_hot(self.split_of(numbers), self.splits).to(p)
        self.tensor += of_split.T @ torch.cat(rows, dim=1)

    def result(self) -> InceptionScore:
        """The score of all samples.

        Raises RuntimeError unless every sample is in the sums exactly once, and UserError if a logit was not finite.
        """
        p_sum, negentropy_sum, count, number_sum = self.tensor.cpu().split([self.classes, 1, 1, 1], dim=1)
        numbers = torch.arange(self.samples)
        expected = torch.zeros(self.splits, 2, dtype=torch.float64)
        expected.index_add_(0, self.split_of(numbers), torch.stack([torch.ones_like(numbers), numbers], 1).double())
        if not torch.equal(torch.cat([count, number_sum], dim=1), expected):
            raise RuntimeError(
                f"{int(count.sum())} of {self.samples} samples were added, or some of them twice and others never; "
                "every sample number counts once, and the sums of all ranks must be reduced before the result"
            )
        if not torch.isfinite(self.tensor).all():
            raise UserError(
                "the classifier gave NaN or Inf for some samples, so there is no Inception Score: the pictures are not "
                "finite (look at a grid of them, try an earlier checkpoint) or the classifier's weights are damaged"
            )
        mean_p = p_sum / count
        divergence = (negentropy_sum / count).squeeze(1) - torch.xlogy(mean_p, mean_p).sum(dim=1)
        scores = divergence.exp()
        std = scores.std(correction=0).item() if self.splits > 1 else math.nan
        return InceptionScore(scores.mean().item(), std, self.samples, self.splits, tuple(scores.tolist()))
