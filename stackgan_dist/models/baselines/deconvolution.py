"""The layers of GAN-INT-CLS and GAWWN that StackGAN gave up: transposed convolutions instead of up-sampling blocks.

The authors' codes give every convolution a bias. Here one has a bias only where no batch normalisation follows, which
would take it out again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from torch import nn

from stackgan_dist.models.adversarial import NonSaturating
from stackgan_dist.models.config import ModelConfig
from stackgan_dist.models.family import Discriminator, Generator


def from_point(inputs: int, outputs: int, *activation: nn.Module) -> nn.Sequential:
    """A vector to a map, batch-normalised: (N, inputs, 1, 1) -> (N, outputs, 4, 4)."""
    return _normalised(nn.ConvTranspose2d(inputs, outputs, 4, bias=False), *activation)


def doubling(inputs: int, outputs: int, *activation: nn.Module) -> nn.Sequential:
    """Twice the side, batch-normalised: (N, inputs, H, W) -> (N, outputs, 2H, 2W)."""
    return _normalised(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False), *activation)


def mixing(inputs: int, outputs: int, *activation: nn.Module) -> nn.Sequential:
    """3x3 at the same side, batch-normalised: (N, inputs, H, W) -> (N, outputs, H, W)."""
    return _normalised(nn.ConvTranspose2d(inputs, outputs, 3, padding=1, bias=False), *activation)


def doubling_to_image(inputs: int, *, bias: bool) -> nn.Sequential:
    """The last layer: (N, inputs, H, W) -> (N, 3, 2H, 2W) in [-1, 1]."""
    return nn.Sequential(nn.ConvTranspose2d(inputs, 3, 4, stride=2, padding=1, bias=bias), nn.Tanh())


def _normalised(layer: nn.ConvTranspose2d, *activation: nn.Module) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), *activation)


def initialise_convolutions(network: nn.Module) -> None:
    """Start as both codes do, from torch's global random numbers.

    Convolutions start at N(0, 0.02) with bias 0, batch normalisation at N(1, 0.02) with shift 0. Fully connected
    layers keep torch's own start, which was Torch7's.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(layer.weight, mean=1.0, std=0.02)


class Baseline:
    """A family of these layers; see Family."""

    loss = NonSaturating()
    networks: ClassVar[tuple[Callable[[ModelConfig, int], Generator], Callable[[ModelConfig, int], Discriminator]]]
    """The classes of its generator and its discriminator."""

    def generator(self, config: ModelConfig, text_dim: int) -> Generator:
        """See Family."""
        network = self.networks[0](config, text_dim)
        initialise_convolutions(network)
        return network

    def discriminator(self, config: ModelConfig, text_dim: int) -> Discriminator:
        """See Family."""
        network = self.networks[1](config, text_dim)
        initialise_convolutions(network)
        return network
