"""The contrastive head: which of many texts is a picture's own, told by the discriminator's features.

InfoNCE (arXiv 1807.03748) between pictures and texts, as XMC-GAN's discriminator learns it (arXiv 2101.04702). The
other texts are a pool that all rows share, not the other rows' texts, so no row depends on which others it is with.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stackgan_dist.models.blocks import LEAKY_SLOPE, initialise_by_inputs, without_autocast

_DIM = 128
"""Of the space in which pictures and texts are compared."""
_HIDDEN = 256
_FIRST_SCALE, _LARGEST_SCALE = 10.0, 30.0
"""Of the cosines; the first one is where learning starts."""


class ContrastiveHead(nn.Module):
    """Scaled cosines of pictures with their own texts and with those of a pool, in float32 under autocast too.

    Args:
        features: numbers that the discriminator has of a picture.
        text_dim: width of the text embeddings.
    """

    def __init__(self, features: int, text_dim: int) -> None:
        super().__init__()
        self.embed = initialise_by_inputs(nn.Linear(features, _DIM), 1.0)
        self.text = nn.Sequential(
            initialise_by_inputs(nn.Linear(text_dim, _HIDDEN), 1.3),
            nn.LeakyReLU(LEAKY_SLOPE),
            initialise_by_inputs(nn.Linear(_HIDDEN, _DIM), 1.0),
        )
        self.log_scale = nn.Parameter(
            torch.tensor([math.log(_FIRST_SCALE)])
        )  # DeepSpeed sends none without a dimension

    def forward(self, features: Tensor, text: Tensor, pool: Tensor) -> Tensor:
        """Logits (N, 1 + P) of features (N, C, H, W).

        With their own text (N, text_dim) first, then with each of the pool (P, text_dim).
        """
        with without_autocast(features.device):
            picture = F.normalize(self.embed(features.flatten(1).to(self.embed.weight.dtype)), dim=1)
            own, others = (F.normalize(self.text(given), dim=1) for given in (text, pool))
            cosines = torch.cat([(picture * own).sum(1, keepdim=True), picture @ others.T], dim=1)
            return self.log_scale.clamp(max=math.log(_LARGEST_SCALE)).exp() * cosines
