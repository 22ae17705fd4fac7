"""Sharpness tells blur from noise."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from stackgan_dist.colour_agreement.sharpness import OUTLINES, steepness


def _square(side: int = 41) -> torch.Tensor:
    picture = torch.full((1, 3, side, side), -1.0)
    picture[..., 10:20, 10:20] = 1
    return picture


def test_the_steps_of_a_square_by_hand() -> None:
    # 40 x 40 steps, of which 80 are outlines: the square has 38 of length 1 and, at its lower right corner, one of
    # length sqrt(2) that is both.
    outlines, rest = steepness(_square())[0].tolist()
    assert round(OUTLINES * 40 * 40) == 80
    torch.testing.assert_close(outlines, 100 * (38 + 2**0.5) / 80)
    assert rest == 0


def test_blur_lowers_outlines_and_noise_raises_the_rest() -> None:
    sharp = _square(64)
    blurred = F.interpolate(F.avg_pool2d(sharp, 4), scale_factor=4, mode="bilinear")
    noisy = sharp + 0.1 * torch.randn(sharp.shape, generator=torch.Generator().manual_seed(0))
    (outlines, rest), (soft, _), (_, rough) = (steepness(picture)[0].tolist() for picture in (sharp, blurred, noisy))
    assert soft < 0.8 * outlines
    assert rest == 0
    assert rough > 1


def test_rows_are_measured_alone_whatever_their_type() -> None:
    pictures = torch.rand(3, 3, 16, 16) * 2 - 1
    both = steepness(pictures)
    torch.testing.assert_close(both[1:2], steepness(pictures[1:2]))
    torch.testing.assert_close(steepness(pictures.bfloat16()), both, rtol=0.05, atol=0.1)
    assert both.dtype == torch.float64
