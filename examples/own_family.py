"""A model family of one's own, with an option of its own: the smallest networks, by the hinge loss.

PYTHONPATH=examples stackgan train --run.name tiny --model.family own_family:Tiny --model.options layers=2
PYTHONPATH=examples STACKGAN_ALLOW=own_family stackgan generate runs/tiny "a small red bird"
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stackgan_dist.models import Discriminator, Fakes, Generator, Logits, ModelConfig
from stackgan_dist.models.adversarial import Hinge


class TinyGenerator(Generator):
    """text, noise -> image. `eps` is for a conditioning augmentation; without one, mu and log sigma are 0."""

    def __init__(self, config: ModelConfig, text_dim: int, layers: int) -> None:
        super().__init__()
        width, side = config.generator_width, config.image_size // 4
        self.start = nn.Sequential(
            nn.Linear(text_dim + config.noise_dim, width * side**2), nn.Unflatten(1, (width, side, side))
        )
        deep = [nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU()) for _ in range(layers)]
        self.paint = nn.Sequential(*deep, nn.ConvTranspose2d(width, 3, 4, stride=4), nn.Tanh())

    def forward(self, text: Tensor, z: Tensor, eps: Tensor) -> Fakes:
        image = self.paint(self.start(torch.cat([text, z], dim=1)))
        return Fakes(image, torch.zeros_like(text), torch.zeros_like(text), low_resolution=None)


class TinyDiscriminator(Discriminator):
    """image, text -> logit: the image's features, weighed by the text."""

    def __init__(self, config: ModelConfig, text_dim: int) -> None:
        super().__init__()
        width, places = config.discriminator_width, (config.image_size // 8) ** 2
        self.features = nn.Sequential(nn.Conv2d(3, width, 8, stride=8), nn.LeakyReLU(0.2), nn.Flatten())
        self.read = nn.Linear(text_dim, width * places)

    def score(self, features: Tensor, text: Tensor) -> Logits:
        return Logits((features * (1 + self.read(text))).mean(1), unconditional=None)


@dataclass(frozen=True)
class Tiny:
    """See stackgan_dist.models.Family: called with --model.options."""

    layers: int = 1
    loss = Hinge()

    def generator(self, config: ModelConfig, text_dim: int) -> Generator:
        return TinyGenerator(config, text_dim, self.layers)

    def discriminator(self, config: ModelConfig, text_dim: int) -> Discriminator:
        return TinyDiscriminator(config, text_dim)
