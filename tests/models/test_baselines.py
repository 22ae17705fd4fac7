"""GAN-INT-CLS, GAWWN and DF-GAN against what is published of them, and what the first make of a place."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from distributed.tiny import BASELINES, wake
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from stackgan_dist.errors import UserError
from stackgan_dist.models import Discriminator, Generator, ModelConfig, build_discriminator, build_generator
from stackgan_dist.models.baselines.placing import GRID, into_box, keypoint_maps, out_of_box

TEXT_DIM = 6
ROWS = 4
PUBLISHED = {
    # Counted out of the authors' codes: parameters of G and D, forward GFLOP of G and D. What is used twice, as G's
    # layer for the text and D's trunk, is computed once.
    "gan-int-cls": (ModelConfig(family="gan-int-cls"), 18_909_699, 4_032_321, 1.0311, 0.2441),
    "gawwn-box": (
        ModelConfig(family="gawwn-box", image_size=128, discriminator_width=128),
        73_545_699, 16_763_137, 3.0463, 2.387,
    ),
    "gawwn-keypoints": (
        ModelConfig(family="gawwn-keypoints", image_size=128, discriminator_width=128),
        26_471_043, 14_667_905, 6.7492, 2.221,
    ),
}  # fmt: skip
each_published = pytest.mark.parametrize("name", PUBLISHED)
each_baseline = pytest.mark.parametrize("name", BASELINES)


def _place(config: ModelConfig, rows: int = ROWS, seed: int = 0) -> tuple[Tensor, ...]:
    """A place for each row: boxes inside the picture, keypoints that are all visible."""
    if config.placement is None:
        return ()
    place = 0.1 + 0.4 * torch.rand(rows, *config.placement.shape, generator=torch.Generator().manual_seed(seed))
    if config.placement.kind == "keypoints":
        place[..., 2] = 1
    return (place,)


def _networks(name: str) -> tuple[ModelConfig, Generator, Discriminator]:
    torch.manual_seed(0)
    config = BASELINES[name]
    generator, discriminator = build_generator(config, TEXT_DIM), build_discriminator(config, TEXT_DIM)
    if name == "df-gan":
        wake(generator)
        wake(discriminator)
    return config, generator, discriminator


def _given(config: ModelConfig, text_dim: int = TEXT_DIM, rows: int = ROWS) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    text, z = (torch.randn(rows, dim, generator=random) for dim in (text_dim, config.noise_dim))
    return text, z, torch.empty(rows, 0, config.condition_dim)


@each_published
def test_parameters_are_the_authors(name: str) -> None:
    """Their convolutions all have a bias; here those that do nothing are left out, one number for each output."""
    config, *expected = PUBLISHED[name]
    with torch.device("meta"):
        networks: list[nn.Module] = [build_generator(config, 1024), build_discriminator(config, 1024)]
    for network, published in zip(networks, expected, strict=False):
        convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
        left_out = sum(layer.out_channels for layer in convolutions if layer.bias is None)
        assert sum(weights.numel() for weights in network.parameters()) + left_out == published


@each_published
def test_arithmetic_is_the_authors(name: str) -> None:
    config, _, _, *expected = PUBLISHED[name]
    with torch.device("meta"):
        generator, discriminator = build_generator(config, 1024).eval(), build_discriminator(config, 1024).eval()
        place = _meta(_place(config, 1))
        given = _meta(_given(config, 1024, 1))
        with FlopCounterMode(display=False) as generating:
            image = generator(*given, *place).image
        with FlopCounterMode(display=False) as judging:
            discriminator(image, given[0], *place)
    for counter, published in zip((generating, judging), expected, strict=True):
        # Moving maps into boxes (bmm) is not in the published numbers.
        layers = {str(op): flops for op, flops in counter.get_flop_counts()["Global"].items()}
        flops = sum(count for op, count in layers.items() if "bmm" not in op)
        assert flops / 1e9 == pytest.approx(published, abs=1e-3)


def test_df_gan_has_the_parameters_of_its_authors() -> None:
    """Counted layer by layer from their code's formulas, at its width of 32 and 256 pixels."""
    width, text, noise, condition = 32, 256, 100, 356
    widths = [width * min(2**n, 8) for n in range(7)]

    def affine(channels: int) -> int:
        return 2 * (condition * channels + channels + channels * channels + channels)

    generator = noise * 8 * width * 16 + 8 * width * 16 + 27 * width + 3
    discriminator = 27 * width + width + 9 * (8 * width + text) * 2 * width + 2 * width * 16
    for few, many in itertools.pairwise(widths):
        shortcut = few * many
        generator += 2 * affine(many) + 2 * affine(few) + 9 * many * few + few + 9 * few * few + few
        discriminator += 16 * few * many + 9 * many * many + 1
        if few != many:
            generator, discriminator = generator + shortcut + few, discriminator + shortcut + many
    with torch.device("meta"):
        config = ModelConfig(family="df-gan", image_size=256, generator_width=width, discriminator_width=width)
        networks = build_generator(config, text), build_discriminator(config, text)
    found = tuple(sum(weights.numel() for weights in network.parameters()) for network in networks)
    assert found == (generator, discriminator) == (9_744_131, 6_717_766)


def _meta(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.to("meta") for tensor in tensors)


@each_baseline
def test_shapes_ranges_and_gradients(name: str) -> None:
    config, generator, discriminator = _networks(name)
    given, place = _given(config), _place(config)
    fakes = generator(*given, *place)
    assert fakes.image.shape == (ROWS, 3, config.image_size, config.image_size)
    assert fakes.image.abs().max() <= 1
    assert not fakes.mu.any()
    assert not fakes.log_sigma.any()
    assert fakes.low_resolution is None
    scores = discriminator(fakes.image, generator.discriminator_condition(given[0]), *place)
    assert scores.conditional.shape == (ROWS,)
    assert scores.unconditional is None
    scores.conditional.square().sum().backward()
    for network in (generator, discriminator):
        for parameter_name, parameter in network.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.any(), parameter_name


@each_baseline
def test_text_noise_and_place_matter(name: str) -> None:
    config, generator, discriminator = _networks(name)
    generator.eval()
    discriminator.eval()
    (text, z, eps), place = _given(config), _place(config)
    image = generator(text, z, eps, *place).image
    assert not torch.equal(image, generator(text.flip(0), z, eps, *place).image)
    assert not torch.equal(image, generator(text, z.flip(0), eps, *place).image)
    logits = discriminator(image, text, *place).conditional
    assert not torch.equal(logits, discriminator(image, text.flip(0), *place).conditional)
    if place:
        elsewhere = _place(config, seed=1)
        assert not torch.equal(image, generator(text, z, eps, *elsewhere).image)
        assert not torch.equal(logits, discriminator(image, text, *elsewhere).conditional)


def _sampled(features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """torch's own sampler with an axis-aligned affine map."""
    affine = torch.zeros(len(features), 2, 3, dtype=features.dtype)
    affine[:, 0, 0], affine[:, 1, 1] = scale[:, 0], scale[:, 1]
    affine[:, :, 2] = shift
    grid = F.affine_grid(affine, list(features.shape), align_corners=True)
    return F.grid_sample(features, grid, padding_mode="zeros", align_corners=True)


def test_placing_is_bilinear_sampling() -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(5, 3, GRID, GRID, generator=random, dtype=torch.float64)
    low = 0.5 * torch.rand(5, 2, generator=random, dtype=torch.float64)
    size = 0.1 + 0.4 * torch.rand(5, 2, generator=random, dtype=torch.float64)
    box = torch.cat([low, size], dim=1)
    centre = 2 * low + size - 1
    torch.testing.assert_close(out_of_box(features, box), _sampled(features, size, centre))
    torch.testing.assert_close(into_box(features, box), _sampled(features, 1 / size, -centre / size))


def test_a_map_in_a_box_fills_it_and_nothing_else() -> None:
    box = torch.tensor([[3, 6, 9, 5]], dtype=torch.float64) / (GRID - 1)
    placed = into_box(torch.ones(1, 1, GRID, GRID, dtype=box.dtype), box)[0, 0]
    expected = torch.zeros(GRID, GRID, dtype=box.dtype)
    expected[6:12, 3:13] = 1
    torch.testing.assert_close(placed, expected)
    torch.testing.assert_close(out_of_box(placed[None, None], box), torch.ones(1, 1, GRID, GRID, dtype=box.dtype))


def test_keypoint_maps() -> None:
    points = torch.tensor([[[0.0, 0.0, 1.0], [1.0, 0.5, 1.0], [0.3, 0.3, 0.0]]])
    maps = keypoint_maps(points)
    assert maps.shape == (1, 3, GRID, GRID)
    assert maps.nonzero().tolist() == [[0, 0, 0, 0], [0, 1, 8, 15]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"family": "gan-int-cls", "stage": 2, "image_size": 128}, "stage is 2, but it is StackGAN's and gan-int-cls"),
        ({"family": "gan-int-cls", "image_size": 128}, "gan-int-cls makes images of 64 pixels; set it to 64"),
        ({"family": "gawwn-box"}, "gawwn-box makes images of 128 pixels; set it to 128"),
        ({"family": "gawwn-box", "image_size": 128, "recipe": "pytorch"}, "recipe is 'pytorch', but it is StackGAN's"),
        ({"family": "gawwn-box", "image_size": 128, "generator_width": 6}, "make it a multiple of 4"),
        ({"family": "gawwn-box", "image_size": 128, "keypoints": ("beak",)}, "keypoints are for the family gawwn-key"),
        (
            {"family": "dcgan"},
            "--model.family is 'dcgan', it must be one of stackgan, gan-int-cls, gawwn-box, gawwn-keypoints",
        ),
    ],
)
def test_what_a_baseline_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig(**settings)


def test_stage2_does_not_start_from_a_baseline() -> None:
    with pytest.raises(UserError, match="given a gan-int-cls generator to start from"):
        build_generator(ModelConfig(stage=2, image_size=256), TEXT_DIM, ModelConfig(family="gan-int-cls"))
