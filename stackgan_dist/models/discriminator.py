"""The matching-aware discriminators of both stages: is the image real, and does the text belong to it?"""

from __future__ import annotations

from torch import Tensor, nn

from stackgan_dist.models.blocks import bottleneck, conv, leaky_relu, normalised, tile
from stackgan_dist.models.config import ModelConfig
from stackgan_dist.models.family import Discriminator
from stackgan_dist.models.outputs import Logits


class StackGANDiscriminator(Discriminator):
    """image, condition -> logits. Stage-II differs by its image size, and in `pytorch` by a second head.

    Stride-2 convolutions double the channels down to 4x4; above 64 pixels that is more than 8 Df, and stride-1
    convolutions bring them back to 8 Df. `paper` reduces by 1x1, ends in the residual block of the authors'
    TensorFlow code (whose input carries no activation) and reads the text by a layer of its own; every down-sampling
    block before that has its LeakyReLU, which the paper states and the TensorFlow code leaves out once in Stage-I.
    `pytorch` reduces by 3x3 and is given a condition, mu of the generator.
    """

    def __init__(self, config: ModelConfig, text_dim: int) -> None:
        super().__init__()
        self.encode = _encoder(config)
        self.embed_text = (
            nn.Sequential(nn.Linear(text_dim, config.condition_dim), leaky_relu())
            if config.recipe == "paper"
            else nn.Identity()
        )
        features = 8 * config.discriminator_width
        bias = config.recipe == "pytorch"
        self.conditional = nn.Sequential(
            normalised(
                conv(features + config.condition_dim, features, 3 if config.recipe == "pytorch" else 1),
                leaky_relu(),
            ),
            nn.Conv2d(features, 1, 4, bias=bias),
        )
        self.unconditional = (
            nn.Conv2d(features, 1, 4, bias=bias) if config.recipe == "pytorch" and config.stage == 2 else None
        )

    def features(self, image: Tensor) -> Tensor:
        """The part that knows no text: (N, 3, S, S) -> (N, 8 Df, 4, 4). One pass serves several conditions."""
        features: Tensor = self.encode(image)
        return features

    def score(self, features: Tensor, condition: Tensor) -> Logits:
        """Logits of features (N, 8 Df, 4, 4) with condition (N, text_dim) or, in `pytorch`, (N, condition_dim)."""
        conditional = self.conditional(tile(self.embed_text(condition), features)).flatten()
        unconditional = None if self.unconditional is None else self.unconditional(features).flatten()
        return Logits(conditional, unconditional)


def _encoder(config: ModelConfig) -> nn.Sequential:
    width = config.discriminator_width
    reduce_kernel = 1 if config.recipe == "paper" else 3
    channels = [width << n for n in range(config.discriminator_halvings)]
    blocks = [normalised(conv(few, 2 * few, 4, stride=2), leaky_relu()) for few in channels[:-1]] + [
        normalised(conv(many, many // 2, reduce_kernel), leaky_relu()) for many in reversed(channels[4:])
    ]
    layers: list[nn.Module] = [conv(3, width, 4, stride=2), leaky_relu(), *blocks]
    if config.recipe == "paper":
        layers[-1] = blocks[-1][:2]  # the residual block adds to it before the activation
        layers.append(bottleneck(8 * width, leaky_relu()))
    return nn.Sequential(*layers)
