"""GAWWN, the Generative Adversarial What-Where Network (Reed et al., NIPS 2016, arXiv 1610.02454): 128x128 pixels.

It is conditioned on the text and on where the object is: a bounding box, or some keypoints. As in the authors' code
for birds (main_cub_bbox.lua with one box, main_cub_keypoints.lua).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stackgan_dist.models.baselines.deconvolution import Baseline, doubling, doubling_to_image, from_point, mixing
from stackgan_dist.models.baselines.placing import GRID, any_keypoint, into_box, keypoint_maps, out_of_box
from stackgan_dist.models.blocks import bottleneck, conv, leaky_relu, normalised, relu, tile
from stackgan_dist.models.conditioning import nothing_drawn
from stackgan_dist.models.config import ModelConfig
from stackgan_dist.models.family import Discriminator, Generator
from stackgan_dist.models.outputs import Fakes, Logits


def _spread(vector: Tensor) -> Tensor:
    """(N, D) -> (N, D, GRID, GRID), the same everywhere."""
    return vector[:, :, None, None].expand(-1, -1, GRID, GRID)


def _point(*vectors: Tensor) -> Tensor:
    """Vectors (N, D), side by side, as a map (N, sum of D, 1, 1)."""
    return torch.cat(vectors, dim=1)[:, :, None, None]


def _gather(inputs: int, widths: tuple[int, int, int]) -> nn.Sequential:
    """Maps to a vector: (N, inputs, 16, 16) -> (N, last of widths, 1, 1)."""
    first, second, third = widths
    return nn.Sequential(
        normalised(conv(inputs, first, 4, stride=2), relu()),
        normalised(conv(first, second, 4, stride=2), relu()),
        normalised(nn.Conv2d(second, third, 4, bias=False), relu()),
    )


class GawwnBoxGenerator(Generator):
    """text, noise, box -> image of 128 pixels.

    A global path knows the text at its place in the picture; a local path makes the object, which is put there.
    """

    def __init__(self, config: ModelConfig, text_dim: int) -> None:
        super().__init__()
        width = config.generator_width
        self.embed_text = nn.Linear(text_dim, 4 * width)
        self.embed_global_noise = nn.Sequential(nn.Linear(config.noise_dim, 4 * width), relu())
        self.embed_local_noise = nn.Linear(config.noise_dim, 4 * width)
        self.gather = _gather(4 * width, (4 * width, 4 * width, 4 * width))
        self.draw_global = nn.Sequential(
            from_point(8 * width, 8 * width, relu()),
            doubling(8 * width, 4 * width, relu()),
            doubling(4 * width, 2 * width, relu()),
        )
        self.draw_local = nn.Sequential(
            relu(),
            from_point(8 * width, 8 * width),
            bottleneck(8 * width, relu()),
            doubling(8 * width, 4 * width),
            bottleneck(4 * width, relu()),
            doubling(4 * width, 2 * width),
        )
        self.merge = nn.Sequential(
            mixing(4 * width, 2 * width, relu()),
            doubling(2 * width, width, relu()),
            doubling(width, width // 4, relu()),
            doubling_to_image(width // 4, bias=True),
        )

    def forward(self, text: Tensor, z: Tensor, eps: Tensor, box: Tensor) -> Fakes:
        """Make one image for each row.

        text (N, text_dim); z (N, noise_dim) from N(0, 1); eps is empty; box (N, 4): left, top, width and height in
        fractions of the side.
        """
        meaning = self.embed_text(text)
        gathered = self.gather(into_box(_spread(meaning), box)).flatten(1)
        around = self.draw_global(_point(self.embed_global_noise(z), gathered))
        thing = self.draw_local(_point(self.embed_local_noise(z), meaning))
        image = self.merge(torch.cat([around, into_box(thing, box).relu()], dim=1))
        return Fakes(image, *nothing_drawn(text), low_resolution=None)


class GawwnKeypointGenerator(Generator):
    """text, noise, keypoints -> image of 128 pixels."""

    def __init__(self, config: ModelConfig, text_dim: int) -> None:
        super().__init__()
        assert config.placement is not None
        width, parts = config.generator_width, len(config.placement.names)
        self.embed_text = nn.Linear(text_dim, 4 * width)
        self.embed_noise = nn.Linear(config.noise_dim, 4 * width)
        self.code_global, self.code_local = (
            nn.Sequential(nn.Linear(8 * width, 4 * width), nn.BatchNorm1d(4 * width), relu()) for _ in range(2)
        )
        self.gather = _gather(parts, (width, 2 * width, 4 * width))
        self.draw_global = nn.Sequential(
            from_point(8 * width, 4 * width, relu()),
            doubling(4 * width, 2 * width, relu()),
            doubling(2 * width, width, relu()),
        )
        self.draw_local = mixing(4 * width, 4 * width, relu())
        self.merge = nn.Sequential(
            mixing(5 * width + parts, 4 * width, relu()),
            mixing(4 * width, 4 * width),
            bottleneck(4 * width, relu()),
            doubling(4 * width, 2 * width, relu()),
            doubling(2 * width, width, relu()),
            doubling_to_image(width, bias=True),
        )

    def forward(self, text: Tensor, z: Tensor, eps: Tensor, keypoints: Tensor) -> Fakes:
        """Make one image for each row.

        text (N, text_dim); z (N, noise_dim) from N(0, 1); eps is empty; keypoints (N, K, 3): x and y in fractions of
        the side, and 1 for a visible one, else 0.
        """
        maps = keypoint_maps(keypoints)
        code = torch.cat([self.embed_noise(z), self.embed_text(text)], dim=1).relu()
        around = self.draw_global(_point(self.code_global(code), self.gather(maps).flatten(1)))
        thing = self.draw_local(_spread(self.code_local(code)) * any_keypoint(maps))
        image = self.merge(torch.cat([around, thing, maps.to(thing.dtype)], dim=1))
        return Fakes(image, *nothing_drawn(text), low_resolution=None)


class _Discriminator(Discriminator):
    """image, text, place -> logit: one path looks at the object, one at the whole picture.

    Args:
        config: of the model.
        text_dim: width of the text embeddings.
        region_extra: maps that are joined to the object's features.
        global_extra: channels that are joined to the whole picture's features at 4x4.
    """

    def __init__(self, config: ModelConfig, text_dim: int, region_extra: int, global_extra: int) -> None:
        super().__init__()
        width, text = config.discriminator_width, config.condition_dim
        self.embed_text = nn.Sequential(nn.Linear(text_dim, text), leaky_relu())
        self.trunk = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            leaky_relu(),
            nn.Conv2d(width, width, 4, stride=2, padding=1),
            leaky_relu(),
            normalised(conv(width, 2 * width, 4, stride=2), leaky_relu()),
            normalised(conv(2 * width, 2 * width, 3), leaky_relu()),
        )
        self.with_text = normalised(conv(2 * width + text, 2 * width, 3), leaky_relu())
        self.region = nn.Sequential(
            normalised(conv(2 * width + region_extra, 2 * width, 1), leaky_relu()),
            nn.Conv2d(2 * width, width, 1),
        )
        self.activate = leaky_relu()
        self.whole = nn.Sequential(
            normalised(conv(2 * width, 4 * width, 4, stride=2), leaky_relu()),
            normalised(conv(4 * width, 8 * width, 4, stride=2), leaky_relu()),
        )
        self.join = nn.Sequential(
            normalised(conv(8 * width + global_extra, 4 * width, 1), leaky_relu()),
            normalised(nn.Conv2d(4 * width, width, 4, bias=False), leaky_relu()),
        )
        self.judge = nn.Sequential(
            nn.Linear(2 * width, width), nn.BatchNorm1d(width), leaky_relu(), nn.Linear(width, 1)
        )

    def features(self, image: Tensor) -> Tensor:
        """The part that knows neither text nor place: (N, 3, 128, 128) -> (N, 2 Df, 16, 16)."""
        features: Tensor = self.trunk(image)
        return features

    def _judge(self, region: Tensor, whole: Tensor) -> Logits:
        """Logits from what the two paths join at 16x16 and at 4x4."""
        thing = self.activate(self.region(region).mean((2, 3)))
        return Logits(self.judge(torch.cat([thing, self.join(whole).flatten(1)], dim=1)).flatten(), None)


class GawwnBoxDiscriminator(_Discriminator):
    """image, text, box -> logit."""

    def __init__(self, config: ModelConfig, text_dim: int) -> None:
        width, text = config.discriminator_width, config.condition_dim
        super().__init__(config, text_dim, region_extra=0, global_extra=width)
        self.place_text = nn.Sequential(
            normalised(conv(text, 4 * width, 4, stride=2), relu()),
            normalised(conv(4 * width, width, 4, stride=2), relu()),
        )

    def score(self, features: Tensor, text: Tensor, place: Tensor) -> Logits:
        """Logits of features (N, 2 Df, 16, 16) with text (N, text_dim) and the generator's box (N, 4)."""
        meaning = self.embed_text(text)
        region = out_of_box(self.with_text(tile(meaning, features)), place)
        placed = self.place_text(into_box(_spread(meaning), place))
        return self._judge(region, torch.cat([self.whole(features), placed], dim=1))


class GawwnKeypointDiscriminator(_Discriminator):
    """image, text, keypoints -> logit."""

    def __init__(self, config: ModelConfig, text_dim: int) -> None:
        assert config.placement is not None
        super().__init__(config, text_dim, len(config.placement.names), global_extra=config.condition_dim)

    def score(self, features: Tensor, text: Tensor, place: Tensor) -> Logits:
        """Logits of features (N, 2 Df, 16, 16) with text (N, text_dim) and the generator's keypoints (N, K, 3)."""
        meaning, maps = self.embed_text(text), keypoint_maps(place)
        seen = self.with_text(tile(meaning, features)) * any_keypoint(maps)
        return self._judge(torch.cat([seen, maps.to(seen.dtype)], dim=1), tile(meaning, self.whole(features)))


class GawwnBox(Baseline):
    """See Family."""

    networks = GawwnBoxGenerator, GawwnBoxDiscriminator


class GawwnKeypoints(Baseline):
    """See Family."""

    networks = GawwnKeypointGenerator, GawwnKeypointDiscriminator
