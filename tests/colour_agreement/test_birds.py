"""The judges of painted birds: right about real paintings in training crops, at chance about anything else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stackgan_dist.colour_agreement.birds import find_birds
from stackgan_dist.colour_agreement.colours import agreement, painted_colours
from stackgan_dist.colour_agreement.shapes import with_stray_parts
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.painted import PaintedBirds
from stackgan_dist.painted.drawing import SCENES
from stackgan_dist.painted.species import PARTS
from stackgan_dist.randomness import uniform

BIRDS = PaintedBirds()


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return list(BIRDS.records("test")[::6])


def crops(records: list[Record], size: int) -> Tensor:
    """Training views, uint8 (N, 3, size, size): a random crop of 64/76 of the picture, flipped half of the time."""
    views = []
    big = size * 76 // 64
    for i, record in enumerate(records):
        u, v, flip = uniform(5, i, range(3)).tolist()
        picture = np.asarray(BIRDS.picture(record).resize((big, big), Image.Resampling.BILINEAR))
        x, y = int(u * (big - size + 1)), int(v * (big - size + 1))
        view = picture[y : y + size, x : x + size]
        views.append(view[:, ::-1] if flip < 0.5 else view)
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).contiguous()


@pytest.fixture(scope="module")
def views(records: list[Record]) -> Tensor:
    return crops(records, 64)


def share(counts: dict[str, tuple[int, int]]) -> dict[str, float]:
    return {part: right / max(asked, 1) for part, (right, asked) in counts.items()}


def every_colour(records: list[Record]) -> list[str]:
    return [
        "a {back} bird with {wing} wings, a {belly} belly, a {crown} crown and a {beak} beak".format(**r.attributes)
        for r in records
    ]


def test_real_paintings_are_read_correctly(records: list[Record], views: Tensor) -> None:
    counts = agreement(find_birds(views), every_colour(records))
    # A part in the colour of the back is no question.
    different = {part: sum(r.attributes[part] != r.attributes["back"] for r in records) for part in PARTS[1:]}
    assert {part: asked for part, (_, asked) in counts.items()} == {"back": len(records), **different}
    assert min(share(counts).values()) >= 0.98


def test_floats_flips_and_larger_images_are_read_alike(records: list[Record], views: Tensor) -> None:
    read = painted_colours(find_birds(views[:16]))
    assert painted_colours(find_birds(views[:16].float() / 127.5 - 1)) == read
    assert painted_colours(find_birds(views[:16].flip(3))) == read
    for size in (128, 256):
        counts = agreement(find_birds(crops(records[:16], size)), every_colour(records[:16]))
        assert min(share(counts).values()) >= 0.9


def test_only_what_a_caption_names_is_asked(views: Tensor) -> None:
    counts = agreement(find_birds(views[:2]), ["a bird whose wings are red", "a blue bird with red wings"])
    assert {part: asked for part, (_, asked) in counts.items()} == {
        "back": 1, "wing": 2, "belly": 0, "crown": 0, "beak": 0,
    }  # fmt: skip


def test_a_slightly_blurred_and_noisy_bird_is_still_read(records: list[Record], views: Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    soft = torch.nn.functional.avg_pool2d(views.float() / 127.5 - 1, 3, stride=1, padding=1, count_include_pad=False)
    noisy = (soft + 0.1 * torch.randn(soft.shape, generator=generator)).clamp(-1, 1)
    assert min(share(agreement(find_birds(noisy), every_colour(records))).values()) >= 0.9


def test_the_wrong_captions_agree_by_chance(records: list[Record], views: Tensor) -> None:
    shifted = every_colour(records[3:] + records[:3])
    assert max(share(agreement(find_birds(views), shifted)).values()) < 0.25


def test_noise_and_blank_backgrounds_do_not_fool_it(records: list[Record]) -> None:
    generator = torch.Generator().manual_seed(0)
    captions = every_colour(records)
    pixels = torch.randint(0, 256, (len(records), 3, 64, 64), generator=generator, dtype=torch.uint8)
    blots = torch.rand((len(records), 3, 8, 8), generator=generator) * 2 - 1
    blots = torch.nn.functional.interpolate(blots, size=64, mode="bicubic")
    for images in (pixels, blots):
        assert max(share(agreement(find_birds(images), captions)).values()) < 0.25
    colours = torch.tensor([colour for scene in SCENES.values() for colour in scene], dtype=torch.uint8)
    blank = colours[:, :, None, None].expand(-1, 3, 64, 64)
    assert all(row == dict.fromkeys(PARTS) for row in painted_colours(find_birds(blank)))


def test_wrong_shapes_are_refused(views: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(N, 3, S, S\)"):
        painted_colours(find_birds(views[:1, :, :32, :32]))
    with pytest.raises(ValueError, match="one caption for each"):
        agreement(find_birds(views[:2]), ["a red bird"])


def test_no_real_painting_has_stray_parts(records: list[Record]) -> None:
    for size in (64, 128):
        assert not with_stray_parts(find_birds(crops(records, size))).any()


def test_second_heads_and_tails_are_seen(records: list[Record], views: Tensor) -> None:
    left = torch.arange(64) < 32
    for both_ways in (torch.where(left, views, views.flip(3)), torch.where(left, views.flip(3), views)):
        # Two heads or two tails; a white one might be a cloud.
        assert with_stray_parts(find_birds(both_ways)).float().mean() > 0.75
    crowned = views.clone()
    crowned[:, :, 2:8, 2:8] = torch.tensor([212, 24, 36], dtype=torch.uint8)[:, None, None]  # in a corner, in the air
    assert with_stray_parts(find_birds(crowned)).float().mean() > 0.9


def test_backgrounds_are_no_stray_parts() -> None:
    colours = torch.tensor([colour for scene in SCENES.values() for colour in scene], dtype=torch.uint8)
    assert not with_stray_parts(find_birds(colours[:, :, None, None].expand(-1, 3, 64, 64))).any()
