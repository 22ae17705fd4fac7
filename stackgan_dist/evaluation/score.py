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

    def __init__(self, samples: int, splits: int, classes: int, device: torch.device | str | None = None) -> None:
        if splits < 1 or samples < splits:
            raise UserError(
                f"an Inception Score of {samples} samples in {splits} splits was asked for, but there must be at least "
                f"1 split and 1 sample in each: ask for more samples (the paper has 30000 in 10 splits) or fewer splits"
            )
        self.samples, self.splits, self.classes = samples, splits, classes
        self.tensor = torch.zeros(splits, classes + 3, dtype=torch.float64, device=device)

    def split_of(self, sample_numbers: Tensor) -> Tensor:
        """The split (N,) of every sample: split i has the numbers from i * samples // splits up to, not including,
        (i + 1) * samples // splits, also where samples is no multiple of splits."""
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
        numbers = sample_numbers.to(self.tensor.device)
        log_p = logits.detach().to(self.tensor).log_softmax(dim=1)
        p = log_p.exp()
        rows = [p, (p * log_p).sum(1, keepdim=True), torch.ones_like(p[:, :1]), numbers[:, None].to(p)]
        self.tensor.index_add_(0, self.split_of(numbers), torch.cat(rows, dim=1))

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


class FrechetSums:
    """Count, sum and sum of outer products of features: all that a Frechet distance needs of a set of pictures."""

    tensor: Tensor
    """(features + 1, features + 1), float64: the sum of outer products of (1, x). All-reduce it with SUM, in place."""

    def __init__(self, features: int, device: torch.device | str | None = None) -> None:
        self.tensor = torch.zeros(features + 1, features + 1, dtype=torch.float64, device=device)

    def add(self, features: Tensor) -> None:
        """Add the feature vectors (N, features), any float dtype, of N pictures."""
        extended = torch.nn.functional.pad(features.detach().to(self.tensor), (1, 0), value=1.0)
        self.tensor += extended.T @ extended

    @property
    def count(self) -> int:
        """Pictures added so far."""
        return int(self.tensor[0, 0])

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (features,) and unbiased covariance (features, features); UserError for fewer than 2 pictures."""
        n = self.count
        if n < 2:
            raise UserError(f"a Frechet distance needs at least 2 pictures on either side, found {n}")
        total = self.tensor[0, 1:]
        return total / n, (self.tensor[1:, 1:] - torch.outer(total, total) / n) / (n - 1)


def frechet_distance(a: FrechetSums, b: FrechetSums) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Heusel et al., arXiv 1706.08500, equation 6).

    With fewer pictures than features the covariances are singular: the distance is defined, but biased upwards by
    a lot, so compare distances of equal counts only. Raises UserError where a side has fewer than 2 pictures or its
    features are not finite.
    """
    (mean_a, cov_a), (mean_b, cov_b) = a.moments(), b.moments()
    if mean_a.shape != mean_b.shape:
        raise ValueError(f"features of different widths: {len(mean_a)} and {len(mean_b)}")
    if not (cov_a.isfinite().all() and cov_b.isfinite().all()):
        raise UserError(
            "some pictures have NaN or Inf among their features, so there is no Frechet distance: look at the "
            "pictures, try an earlier checkpoint"
        )
    # C_a C_b has the eigenvalues of the symmetric S C_b S with S = C_a^(1/2), whose solver cannot leave the real line.
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * _without_noise(values).sqrt()) @ vectors.T
    product = root @ cov_b @ root
    trace_of_root = _without_noise(torch.linalg.eigvalsh((product + product.T) / 2)).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_of_root
    return max(distance.item(), 0.0)


def _without_noise(eigenvalues: Tensor) -> Tensor:
    # The zeros of a singular covariance come out as rounding errors, and the sum of their roots is far larger than
    # they are: it would move the distance by 1e-6 to 1e-4, and differently on different numbers of ranks.
    noise = len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps * eigenvalues.max()
    return torch.where(eigenvalues > noise, eigenvalues, 0.0)
