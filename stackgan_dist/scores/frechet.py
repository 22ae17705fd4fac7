"""Frechet distance of two sets of pictures, from float64 sums over their features that ranks can add up."""

from __future__ import annotations

import torch
from torch import Tensor

from stackgan_dist.errors import UserError


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
