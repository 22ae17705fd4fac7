"""GAN-INT-CLS, the first text-to-image GAN (Reed et al., ICML 2016, arXiv 1605.05396): 64x64 pixels.

As in the authors' code for birds and flowers (main_cls_int.lua). CLS is the matching-aware pair, which StackGAN took
over; INT is `--training.interpolated-texts`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stackgan_dist.models.baselines.deconvolution import Baseline, doubling, doubling_to_image, from_point
from stackgan_dist.models.blocks import bottleneck, conv, leaky_relu, normalised, relu, tile
from stackgan_dist.models.conditioning import nothing_drawn
from stackgan_dist.models.config import ModelConfig
from stackgan_dist.models.family import Discriminator, Generator
from stackgan_dist.models.outputs import Fakes, Logits


class GanIntClsGenerator(Generator):
    """text, noise -> image of 64 pixels."""

    def __init__(self, config: ModelConfig, text_dim: int) -> None:
        super().__init__()
        width = config.generator_width
        self.embed_text = nn.Sequential(nn.Linear(text_dim, config.condition_dim), leaky_relu())
        # The code holds all biases of its convolutions at zero.
        self.body = nn.Sequential(
            from_point(config.noise_dim + config.condition_dim, 8 * width),
            bottleneck(8 * width, relu()),
            doubling(8 * width, 4 * width),
            bottleneck(4 * width, relu()),
            doubling(4 * width, 2 * width, relu()),
            doubling(2 * width, width, relu()),
            doubling_to_image(width, bias=False),
        )

    def forward(self, text: Tensor, z: Tensor, eps: Tensor) -> Fakes:
        """Make one image for each row of text (N, text_dim) and z (N, noise_dim) from N(0, 1); eps is empty."""
        code = torch.cat([z, self.embed_text(text)], dim=1)
        return Fakes(self.body(code[:, :, None, None]), *nothing_drawn(text), low_resolution=None)


class GanIntClsDiscriminator(Discriminator):
    """image, text -> logit."""

    def __init__(self, config: ModelConfig, text_dim: int) -> None:
        super().__init__()
        width = config.discriminator_width
        self.encode = nn.Sequential(
            conv(3, width, 4, stride=2),
            leaky_relu(),
            normalised(conv(width, 2 * width, 4, stride=2), leaky_relu()),
            normalised(conv(2 * width, 4 * width, 4, stride=2)),
            normalised(conv(4 * width, 8 * width, 4, stride=2)),
            bottleneck(8 * width, leaky_relu()),
        )
        self.embed_text = nn.Sequential(
            nn.Linear(text_dim, config.condition_dim), nn.BatchNorm1d(config.condition_dim), leaky_relu()
        )
        self.join = nn.Sequential(
            normalised(conv(8 * width + config.condition_dim, 8 * width, 1), leaky_relu()),
            nn.Conv2d(8 * width, 1, 4, bias=False),
        )

    def features(self, image: Tensor) -> Tensor:
        """The part that knows no text: (N, 3, 64, 64) -> (N, 8 Df, 4, 4)."""
        features: Tensor = self.encode(image)
        return features

    def score(self, features: Tensor, text: Tensor) -> Logits:
        """Logits of features (N, 8 Df, 4, 4) with text (N, text_dim)."""
        return Logits(self.join(tile(self.embed_text(text), features)).flatten(), unconditional=None)


class GanIntCls(Baseline):
    """See Family."""

    networks = GanIntClsGenerator, GanIntClsDiscriminator
