"""The Stage-II generator: reads the text again and turns a Stage-I image into a large one (paper section 3.4)."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stackgan_dist.models.blocks import conv, normalised, relu, residual, tile, upsample
from stackgan_dist.models.conditioning import ConditioningAugmentation, nothing_drawn
from stackgan_dist.models.config import STAGE1_IMAGE_SIZE, ModelConfig
from stackgan_dist.models.family import Generator
from stackgan_dist.models.outputs import Fakes
from stackgan_dist.models.stage1 import Stage1Generator
from stackgan_dist.models.text_layers import read_text, text_for_layers

LARGEST_PIXEL = 0.99  # of a Stage-I image that is added to: tanh reaches 1 only at infinity


class Stage2Generator(Generator):
    """text, noise -> Stage-I image -> image of 128 or 256 pixels. Both recipes have this network.

    The Stage-I generator is a frozen part of it (`stage1`): no gradients and always in eval mode. The authors' codes
    leave its batch normalisation in training mode, by which a fixed network keeps changing.
    """

    def __init__(self, config: ModelConfig, text_dim: int, stage1_config: ModelConfig) -> None:
        super().__init__()
        self.recipe = config.recipe
        self.stage1 = Stage1Generator(stage1_config, text_dim).requires_grad_(False).eval()
        self.conditioning = ConditioningAugmentation(config, text_dim) if config.text_in_stage2 else None
        width = config.generator_width
        self.encode = nn.Sequential(
            conv(3, width, 3),
            relu(),
            normalised(conv(width, 2 * width, 4, stride=2), relu()),
            normalised(conv(2 * width, 4 * width, 4, stride=2), relu()),
        )
        joined = 4 * width + (config.condition_dim if config.text_in_stage2 else 0)
        self.join = normalised(conv(joined, 4 * width, 3), relu())
        self.refine = nn.Sequential(*(residual(4 * width) for _ in range(config.stage2_residual_blocks)))
        widths = [4 * width]  # at 16x16
        while 16 << (len(widths) - 1) < config.image_size:
            widths.append(widths[-1] // 2)
        self.decode = nn.Sequential(
            *(upsample(wide, wide // 2) for wide in widths[:-1]),
            conv(widths[-1], 3, 3),
        )
        parts = (self.encode, self.join, self.refine, self.decode) if config.text_every_layer else ()
        self._text_layers = [layer for part in parts for layer in read_text(part, text_dim)]
        self.squash = nn.Tanh()
        self.stage1_skip = config.stage1_skip
        self.stage1_coarse = config.stage1_coarse

    def forward(self, text: Tensor, z: Tensor, eps: Tensor, pictures: Tensor | None = None) -> Fakes:
        """Make one image for each row.

        text (N, text_dim); z (N, noise_dim) and eps (N, 2, condition_dim), both from N(0, 1): Stage-I's conditioning
        augmentation takes eps[:, 0] and Stage-II's own eps[:, 1]. Real `pictures` (N, 3, S, S) in [-1, 1] of the same
        texts are shrunk to Stage-I's size and rebuilt too, in the same pass, whose batch statistics they share.
        """
        with torch.no_grad():
            low_resolution = self.stage1(text, z, eps[:, :1]).image
            start = low_resolution
            if pictures is not None:
                start = torch.cat([start, F.adaptive_avg_pool2d(pictures, STAGE1_IMAGE_SIZE).to(start.dtype)])
            if self.stage1_coarse is not None:
                start = _resized(F.adaptive_avg_pool2d(start, self.stage1_coarse), STAGE1_IMAGE_SIZE)
        with text_for_layers(self._text_layers, _for_all(text, pictures)):
            features = self.encode(start)
            if self.conditioning is None:
                mu, log_sigma = nothing_drawn(eps[:, 1])
            else:
                c, mu, log_sigma = self.conditioning(text, eps[:, 1])
                features = tile(_for_all(c, pictures), features)
            picture = self.decode(self.refine(self.join(features)))
        if self.stage1_skip:
            picture = picture + _before_tanh(_resized(start, picture.shape[-1]))
        image = self.squash(picture)
        rebuilt = None if pictures is None else image[len(text) :]
        return Fakes(image[: len(text)], mu, log_sigma, low_resolution, rebuilt)

    def discriminator_condition(self, text: Tensor) -> Tensor:
        """As Stage-I's, with mu of Stage-II's conditioning augmentation (of Stage-I's where Stage-II reads no text)."""
        if self.recipe == "paper":
            return text
        with torch.no_grad():
            return (self.conditioning or self.stage1.conditioning).mean(text)

    def train(self, mode: bool = True) -> Self:
        """Switch Stage-II alone: the frozen Stage-I stays in eval mode."""
        super().train(mode)
        self.stage1.eval()
        return self


def _for_all(given: Tensor, pictures: Tensor | None) -> Tensor:
    """What the rows are given, and then again what the rows of the `pictures` are."""
    return given if pictures is None else torch.cat([given, given[: len(pictures)]])


def _resized(image: Tensor, side: int) -> Tensor:
    """image (N, 3, H, H), smaller, as (N, 3, side, side)."""
    return F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False)


def _before_tanh(image: Tensor) -> Tensor:
    """What the last tanh makes `image`, in [-1, 1], of."""
    return image.clamp(-LARGEST_PIXEL, LARGEST_PIXEL).atanh()
