"""DF-GAN, deep fusion GAN (arXiv 2008.05865): one stage of 64, 128 or 256 pixels, the text at every convolution.

As in the paper's final form and its authors' code (github.com/tobran/DF-GAN): text and noise together scale and shift
every layer of the generator; the discriminator has no batch normalisation and one output, and pays for its slope at
real pictures with their own text.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stackgan_dist.models.adversarial import MatchingAwareHinge
from stackgan_dist.models.blocks import leaky_relu, tile
from stackgan_dist.models.conditioning import nothing_drawn
from stackgan_dist.models.config import ModelConfig
from stackgan_dist.models.family import Discriminator, Generator
from stackgan_dist.models.outputs import Fakes, Logits
from stackgan_dist.models.upsampling import UpsampleConv


def _widths(narrowest: int, image_size: int) -> list[int]:
    """Channels from the image's side down to 4x4: doubled with every halving, at most 8 times the narrowest."""
    return [narrowest * min(2**n, 8) for n in range((image_size // 4).bit_length())]


def _of_condition(condition_dim: int, channels: int, start: float) -> nn.Sequential:
    """(N, condition_dim) -> (N, channels), a network of two layers that starts as a constant."""
    last = nn.Linear(channels, channels)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, start)
    return nn.Sequential(nn.Linear(condition_dim, channels), nn.ReLU(), last)


class Affine(nn.Module):
    """x scaled and shifted, channel by channel, by two small networks of the condition; it starts as x itself."""

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.scale = _of_condition(condition_dim, channels, start=1.0)
        self.shift = _of_condition(condition_dim, channels, start=0.0)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (N, C, H, W) for conditions (N, condition_dim)."""
        scale, shift = (network(condition)[:, :, None, None] for network in (self.scale, self.shift))
        return torch.addcmul(shift, x, scale)


class Fusion(nn.Module):
    """The deep text-image fusion block: twice an affine function of the condition and a leaky ReLU."""

    def __init__(self, condition_dim: int, channels: int) -> None:
        super().__init__()
        self.affines = nn.ModuleList(Affine(condition_dim, channels) for _ in range(2))
        self.activate = leaky_relu()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """From x (N, C, H, W) to the same shape."""
        for affine in self.affines:
            x = self.activate(affine(x, condition))
        return x


class UpBlock(nn.Module):
    """(N, inputs, H, W) -> (N, outputs, 2H, 2W), residual: enlarge, then fusion and a 3x3 convolution, twice.

    The first fusion and the 1x1 convolution of the shortcut work on single pixels, so they come before the enlarging: a
    quarter of the work for the same function, and enlarging and convolution are one layer.
    """

    def __init__(self, condition_dim: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = Fusion(condition_dim, inputs), Fusion(condition_dim, outputs)
        self.enlarge = UpsampleConv(inputs, outputs)
        self.enlarge_bias = nn.Parameter(torch.zeros(outputs))
        self.convolve = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (N, inputs, H, W) for conditions (N, condition_dim)."""
        large = self.enlarge(self.first(x, condition)) + self.enlarge_bias[:, None, None]
        residual: Tensor = self.convolve(self.second(large, condition))
        return residual + F.interpolate(self.shortcut(x), scale_factor=2, mode="nearest")


class DownBlock(nn.Module):
    """(N, inputs, H, W) -> (N, outputs, H / 2, W / 2), residual, with a learned weight that starts at 0."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
            leaky_relu(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            leaky_relu(),
        )
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """From x (N, inputs, H, W)."""
        # A mean of pixels and a 1x1 convolution may change places; the mean first is a quarter of the work.
        y: Tensor = self.shortcut(F.avg_pool2d(x, 2)) + self.weight * self.residual(x)
        return y


class DFGANGenerator(Generator):
    """text, noise -> image. Every block is told text and noise together; the first map is of noise alone."""

    def __init__(self, config: ModelConfig, text_dim: int) -> None:
        super().__init__()
        widths = _widths(config.generator_width, config.image_size)[::-1]
        self.channels = widths[0]
        self.project = nn.Linear(config.noise_dim, self.channels * 4 * 4)
        self.blocks = nn.ModuleList(UpBlock(text_dim + config.noise_dim, *pair) for pair in pairwise(widths))
        self.image = nn.Sequential(leaky_relu(), nn.Conv2d(widths[-1], 3, 3, padding=1), nn.Tanh())

    def forward(self, text: Tensor, z: Tensor, eps: Tensor) -> Fakes:
        """Make one image for each row of text (N, text_dim) and z (N, noise_dim) from N(0, 1); eps is empty."""
        condition = torch.cat([z, text], dim=1)
        x = self.project(z).view(-1, self.channels, 4, 4)
        for block in self.blocks:
            x = block(x, condition)
        return Fakes(self.image(x), *nothing_drawn(text), low_resolution=None)


class DFGANDiscriminator(Discriminator):
    """image, text -> logit, from one output: the text is read once, at 4x4."""

    def __init__(self, config: ModelConfig, text_dim: int) -> None:
        super().__init__()
        widths = _widths(config.discriminator_width, config.image_size)
        blocks = (DownBlock(*pair) for pair in pairwise(widths))
        self.encode = nn.Sequential(nn.Conv2d(3, widths[0], 3, padding=1), *blocks)
        self.join = nn.Sequential(
            nn.Conv2d(widths[-1] + text_dim, 2 * widths[0], 3, padding=1, bias=False),
            leaky_relu(),
            nn.Conv2d(2 * widths[0], 1, 4, bias=False),
        )

    def features(self, image: Tensor) -> Tensor:
        """The part that knows no text: (N, 3, S, S) in [-1, 1] -> (N, 8 Df, 4, 4)."""
        features: Tensor = self.encode(image)
        return features

    def score(self, features: Tensor, text: Tensor) -> Logits:
        """Logits of features (N, 8 Df, 4, 4) with text (N, text_dim)."""
        return Logits(self.join(tile(text, features)).flatten(), unconditional=None)


class DFGAN:
    """See Family. Weights start as torch's own do, but for the affine functions, which start as x itself."""

    loss = MatchingAwareHinge()

    def generator(self, config: ModelConfig, text_dim: int) -> DFGANGenerator:
        """See Family."""
        return DFGANGenerator(config, text_dim)

    def discriminator(self, config: ModelConfig, text_dim: int) -> DFGANDiscriminator:
        """See Family."""
        return DFGANDiscriminator(config, text_dim)
