"""The Stage-I generator: from the text's embedding and noise to a first small image (paper section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stackgan_dist.models.blocks import bottleneck, layout_of, normalised, relu, to_image, upsample
from stackgan_dist.models.conditioning import ConditioningAugmentation
from stackgan_dist.models.config import ModelConfig
from stackgan_dist.models.family import Generator
from stackgan_dist.models.noise import NoiseAsRead
from stackgan_dist.models.outputs import Fakes
from stackgan_dist.models.text_layers import read_text, text_for_layers
from stackgan_dist.models.upsampling import UpsampleConv


class Stage1Generator(Generator):
    """text, noise -> image of `config.image_size` pixels.

    `paper` has the residual blocks at 4x4 and 8x8 of the authors' TensorFlow code (14.3 M parameters at the default
    widths); their input carries no activation, as there. `pytorch` is up-sampling blocks only (10.3 M). Images
    above 64 pixels take more up-sampling blocks, each with half the channels (Table 2, "256x256 Stage-I GAN").
    """

    def __init__(self, config: ModelConfig, text_dim: int) -> None:
        super().__init__()
        self.recipe = config.recipe
        self.channels = 8 * config.generator_width  # at 4x4
        self.conditioning = ConditioningAugmentation(config, text_dim)
        features = self.channels * 4 * 4
        self.project = nn.Sequential(
            nn.Linear(config.condition_dim + config.noise_dim, features, bias=config.recipe == "paper"),
            nn.BatchNorm1d(features),
        )
        doublings = (config.image_size // 4).bit_length() - 1
        if config.recipe == "paper":
            self.body = _residual_body(self.channels, doublings, config.detail_layer)
        else:
            self.body = _plain_body(self.channels, doublings)
        self._text_layers = read_text(self.body, text_dim) if config.text_every_layer else []
        self.noise = NoiseAsRead(config.noise_dim) if config.noise_as_read else None

    def forward(self, text: Tensor, z: Tensor, eps: Tensor) -> Fakes:
        """Make one image for each row.

        text (N, text_dim); z (N, noise_dim) and eps (N, 1, condition_dim), both from N(0, 1).
        """
        return self.from_code(text, z if self.noise is None else self.noise(z), eps)

    def from_code(self, text: Tensor, z: Tensor, eps: Tensor) -> Fakes:
        """As `forward`, from a z that already has the distribution that the layers know."""
        condition = self.conditioning(text, eps[:, 0])
        code = [condition.c, z] if self.recipe == "paper" else [z, condition.c]
        features = self.project(torch.cat(code, dim=1)).view(-1, self.channels, 4, 4)
        features = features.contiguous(memory_format=layout_of(self.body))
        with text_for_layers(self._text_layers, text):
            image = self.body(features)
        return Fakes(image, condition.mu, condition.log_sigma, low_resolution=None)

    def discriminator_condition(self, text: Tensor) -> Tensor:
        """What the discriminator is to judge an image against, given text (N, text_dim).

        `paper`: the text itself, for the discriminator has a layer of its own for it. `pytorch`: mu
        (N, condition_dim) of the conditioning augmentation, through which no gradient flows.
        """
        if self.recipe == "paper":
            return text
        with torch.no_grad():
            return self.conditioning.mean(text)


def _residual_body(channels: int, doublings: int, detail_layer: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        bottleneck(channels, relu()),
        normalised(UpsampleConv(channels, channels // 2)),
        bottleneck(channels // 2, relu()),
    ]
    widths = [channels >> n for n in range(1, doublings)]
    layers += [upsample(wide, wide // 2) for wide in widths[:-1]]
    if detail_layer:
        return nn.Sequential(*layers, upsample(widths[-1], widths[-1] // 2), to_image(widths[-1] // 2))
    return nn.Sequential(*layers, UpsampleConv(widths[-1], 3), nn.Tanh())


def _plain_body(channels: int, doublings: int) -> nn.Sequential:
    widths = [channels >> n for n in range(doublings)]
    return nn.Sequential(relu(), *(upsample(wide, wide // 2) for wide in widths), to_image(channels >> doublings))
