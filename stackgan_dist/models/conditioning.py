"""Conditioning augmentation: a text is not one point but a small cloud (paper section 3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stackgan_dist.models.config import ModelConfig


class Condition(NamedTuple):
    """The text condition of N samples and the distribution that it came from, each (N, condition_dim)."""

    c: Tensor
    mu: Tensor
    log_sigma: Tensor


class ConditioningAugmentation(nn.Module):
    """One fully connected layer: text (N, text_dim) -> mu and log sigma; c = mu + sigma * eps.

    `paper`: no activation. `pytorch`: ReLU on mu, and the second half of the layer is the log VARIANCE. The authors
    rectify that half too, by which no sigma can be below 1; here it stays free. Without augmentation the layer makes
    only mu, c = mu, and mu and log sigma are reported as 0 (see `Fakes`).
    """

    def __init__(self, config: ModelConfig, text_dim: int) -> None:
        super().__init__()
        self.recipe = config.recipe
        self.augment = config.conditioning_augmentation
        self.condition_dim = config.condition_dim
        self.fc = nn.Linear(text_dim, config.condition_dim * (2 if self.augment else 1))

    def forward(self, text: Tensor, eps: Tensor) -> Condition:
        """text (N, text_dim) and eps (N, condition_dim) from N(0, 1), which is not used without augmentation."""
        mu, log_sigma = self._distribution(text)
        if log_sigma is None:
            return Condition(mu, *nothing_drawn(mu))
        return Condition(mu + log_sigma.exp() * eps, mu, log_sigma)

    def mean(self, text: Tensor) -> Tensor:
        """mu (N, condition_dim) of text (N, text_dim), the condition without its noise."""
        return self._distribution(text)[0]

    def _distribution(self, text: Tensor) -> tuple[Tensor, Tensor | None]:
        out = self.fc(text)
        mu = out[:, : self.condition_dim]
        log_sigma = out[:, self.condition_dim :] if self.augment else None
        if self.recipe == "pytorch":
            mu = F.relu(mu)
            log_sigma = None if log_sigma is None else log_sigma / 2
        return mu, log_sigma


def nothing_drawn(like: Tensor) -> tuple[Tensor, Tensor]:
    """mu and log sigma of the prior, of the shape of `like`: their KL divergence is exactly 0."""
    return torch.zeros_like(like), torch.zeros_like(like)
