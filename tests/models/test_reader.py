"""The reader: pictures of all sizes, limits, and the form in which it halves them."""

from __future__ import annotations

import pytest
import torch
from distributed.tiny import tiny_model
from torch.nn import functional as F

from stackgan_dist.models import ModelConfig
from stackgan_dist.models.reader import Reader, _HalvingConv, _into_channels

TEXT_DIM = 6


@pytest.mark.parametrize(("size", "blocks"), [(64, 3), (128, 4), (256, 5)])
def test_pictures_of_all_sizes_are_read_down_to_four_pixels(size: int, blocks: int) -> None:
    model = tiny_model(image_size=size) if size < 256 else ModelConfig(image_size=256, noise_dim=4)
    reader = Reader(model, TEXT_DIM)
    assert len(reader.blocks) == blocks
    mu, log_sigma = reader(torch.rand(2, 3, size, size), torch.rand(2, TEXT_DIM))
    assert mu.shape == log_sigma.shape == (2, 4)


def test_log_sigma_has_limits() -> None:
    reader = Reader(tiny_model(), TEXT_DIM)
    reader.out.bias.data[:] = 100
    assert (reader(torch.rand(2, 3, 64, 64), torch.rand(2, TEXT_DIM)).log_sigma == 2).all()
    reader.out.bias.data[:] = -100
    assert (reader(torch.rand(2, 3, 64, 64), torch.rand(2, TEXT_DIM)).log_sigma == -5).all()


def test_halving_is_a_convolution_and_a_mean() -> None:
    layer, x = _HalvingConv(3, 5), torch.randn(2, 3, 8, 8)
    plain = F.avg_pool2d(F.conv2d(x, layer.weight, layer.bias, padding=1), 2)
    torch.testing.assert_close(layer(x), plain)


def test_pixels_move_into_channels_also_where_there_are_no_rows() -> None:
    pictures = torch.rand(2, 3, 8, 8)
    assert torch.equal(_into_channels(pictures), F.pixel_unshuffle(pictures, 2))
    assert _into_channels(pictures[:0]).shape == (0, 12, 4, 4)
