"""The reader and the contrastive head: shapes, sizes, and the form in which the reader halves pictures."""

from __future__ import annotations

import math

import pytest
import torch
from distributed.tiny import tiny_model
from torch.nn import functional as F

from stackgan_dist.models import ModelConfig
from stackgan_dist.models.contrastive import ContrastiveHead
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


def test_the_scale_of_the_cosines_has_a_limit_and_a_start() -> None:
    head = ContrastiveHead(8, TEXT_DIM)
    given = torch.rand(3, 2, 2, 2), torch.rand(3, TEXT_DIM), torch.rand(4, TEXT_DIM)
    logits = head(*given)
    assert logits.shape == (3, 5)
    head.log_scale.data.fill_(0.0)
    torch.testing.assert_close(logits, 10 * head(*given))
    head.log_scale.data.fill_(math.log(1000.0))
    torch.testing.assert_close(head(*given), 3 * logits)


def test_the_same_text_in_the_pool_is_as_near_as_the_own_one() -> None:
    head, text = ContrastiveHead(8, TEXT_DIM), torch.rand(3, TEXT_DIM)
    logits = head(torch.rand(3, 2, 2, 2), text, text)
    torch.testing.assert_close(logits[:, 0], logits[:, 1:].diagonal())
