"""Frechet distance of two sets of pictures, from float64 sums over their features that ranks can add up."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from stackgan_dist.errors import UserError


class PictureMoments(Protocol):
    """What a Frechet distance needs of one side: FrechetSums, or what a statistics file says."""

    @property
    def count(self) -> int | None:
        """Pictures behind the moments; None where that is not known."""
        ...

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (features,) and unbiased covariance (features, features), float64; UserError where there are none."""
        ...


class FrechetSums:
    """Count, sum and sum of outer products of features: all that a Frechet distance needs of a set of pictures."""

    tensor: Tensor
    """(features + 1, features + 1), float64: the sum of outer products of (1, x). All-reduce it with SUM, in place."""

    def __init__(self, features: int) -> None:
        self.tensor = torch.zeros(features + 1, features + 1, dtype=torch.float64)

    def add(self, features: Tensor) -> None:
        """Add the feature vectors (N, features), any float dtype, of N pictures, on the device that they are on."""
        self.tensor = self.tensor.to(features.device)
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
        tensor = self.tensor.cpu()
        total = tensor[0, 1:]
        return total / n, (tensor[1:, 1:] - torch.outer(total, total) / n) / (n - 1)


def frechet_distance(a: PictureMoments, b: PictureMoments) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Heusel et al., arXiv 1706.08500, equation 6).

    With fewer pictures than features the covariances are singular: the distance is defined, but biased upwards by
    a lot, so compare distances of equal counts only. Raises UserError where a side has fewer than 2 pictures or its
    features are not finite.
    """
    (mean_a, cov_a), (mean_b, cov_b) = _finite_moments(a, b)
    _, product = _between(cov_a, cov_b)
    trace_of_root = _without_noise(torch.linalg.eigvalsh(product)).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_of_root
    return max(distance.item(), 0.0)


class FrechetSlope:
    """How a Frechet distance from `b` changes with each picture of `a`: its influence function, for an interval.

    The distance is smooth where both covariances are regular. With x one picture's features, its influence is
    2 (m_a - m_b).(x - m_a) + (x - m_a)^T (1 - T) (x - m_a), up to a constant, where T = C_b^(1/2) (C_b^(1/2) C_a
    C_b^(1/2))^(-1/2) C_b^(1/2) is the linear map that takes the one normal distribution to the other. The variance of
    the distance over samples is that of the influences, divided by their number (the infinitesimal jackknife, Efron
    1982).
    """

    def __init__(self, a: PictureMoments, b: PictureMoments) -> None:
        (self._mean, cov_a), (mean_b, cov_b) = _finite_moments(a, b)
        root, product = _between(cov_b, cov_a)
        values, vectors = torch.linalg.eigh(product)
        kept = _without_noise(values)
        inverse = torch.where(kept > 0, kept.rsqrt(), 0.0)
        map_to_b = root @ (vectors * inverse) @ vectors.T @ root
        self._quadratic = torch.eye(len(root), dtype=root.dtype, device=root.device) - map_to_b
        self._linear = 2 * (self._mean - mean_b)

    def influences(self, features: Tensor) -> Tensor:
        """(N,), float64, of the pictures with these features (N, features), up to one constant for all."""
        off = features.to(self._mean) - self._mean
        influences: Tensor = off @ self._linear + ((off @ self._quadratic) * off).sum(1)
        return influences


def _finite_moments(a: PictureMoments, b: PictureMoments) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    (mean_a, cov_a), (mean_b, cov_b) = a.moments(), b.moments()
    if mean_a.shape != mean_b.shape:
        raise ValueError(f"features of different widths: {len(mean_a)} and {len(mean_b)}")
    if not (cov_a.isfinite().all() and cov_b.isfinite().all()):
        raise UserError(
            "some pictures have NaN or Inf among their features, so there is no Frechet distance: look at the "
            "pictures, try an earlier checkpoint"
        )
    return (mean_a, cov_a), (mean_b, cov_b)


def _between(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The root S of the covariance a, and S b S.

    a b has the eigenvalues of the symmetric S b S, whose solver cannot leave the real line.
    """
    values, vectors = torch.linalg.eigh(a)
    root = (vectors * _without_noise(values).sqrt()) @ vectors.T
    product = root @ b @ root
    return root, (product + product.T) / 2


def _without_noise(eigenvalues: Tensor) -> Tensor:
    # The zeros of a singular covariance come out as rounding errors, and the sum of their roots is far larger than
    # they are: it would move the distance by 1e-6 to 1e-4, and differently on different numbers of ranks.
    noise = len(eigenvalues) * torch.finfo(eigenvalues.dtype).eps * eigenvalues.max()
    return torch.where(eigenvalues > noise, eigenvalues, 0.0)
