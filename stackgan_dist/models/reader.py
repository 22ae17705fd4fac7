"""The reader: an encoder that reads the noise z off a real picture and its text, for training alone.

A conditional variational auto-encoder around the generator, as in BicycleGAN (arXiv 1711.11586): from the z that the
reader finds in a picture the generator has to redraw it, so z comes to mean what the text leaves open: pose, size,
background. Otherwise a GAN that is judged by its text soon learns to overlook the noise.
"""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stackgan_dist.models.blocks import LEAKY_SLOPE, initialise_by_inputs
from stackgan_dist.models.config import ModelConfig
from stackgan_dist.models.outputs import Fakes, Reading
from stackgan_dist.models.stage1 import Stage1Generator

_WIDTHS = (24, 48, 64, 96)
"""Channels at a half of the picture's side, a quarter and so on; the last ones stay down to 4x4."""
_TEXT, _JOINT = 128, 256
_LOG_SIGMA = (-5.0, 2.0)
"""The limits of the reader's log sigma."""


class Reader(nn.Module):
    """picture, text -> distribution of z. Nothing is normalised over rows, so none depends on the others.

    Args:
        config: of the generator.
        text_dim: width of the text embeddings.
    """

    def __init__(self, config: ModelConfig, text_dim: int) -> None:
        super().__init__()
        # The first halving is that of the pixels into channels.
        widths = [_WIDTHS[min(n, len(_WIDTHS) - 1)] for n in range(config.discriminator_halvings)]
        self.stem = initialise_by_inputs(nn.Conv2d(4 * 3, widths[0], 3, padding=1), 1.3)
        self.blocks = nn.Sequential(*(_Block(*pair) for pair in itertools.pairwise(widths)))
        self.text = initialise_by_inputs(nn.Linear(text_dim, _TEXT), 1.3)
        self.join = initialise_by_inputs(nn.Linear(widths[-1] * 4 * 4 + _TEXT, _JOINT), 1.3)
        self.out = initialise_by_inputs(nn.Linear(_JOINT, 2 * config.noise_dim), 0.5)

    def forward(self, pictures: Tensor, text: Tensor) -> Reading:
        """Read pictures (N, 3, S, S) in [-1, 1] with their texts (N, text_dim); N may be 0."""
        seen = _activated(self.blocks(self.stem(_into_channels(pictures)))).flatten(1)
        joint = _activated(self.join(torch.cat([seen, _activated(self.text(text))], dim=1)))
        mu, log_sigma = self.out(joint).chunk(2, dim=1)
        return Reading(mu, log_sigma.clamp(*_LOG_SIGMA))


class ReadingGenerator(nn.Module):
    """A Stage-I generator and its reader, which are trained as one network.

    Args:
        generator: what pictures are generated with after the training.
        reader: what the training alone needs.
    """

    def __init__(self, generator: Stage1Generator, reader: Reader) -> None:
        super().__init__()
        self.generator = generator
        self.reader = reader

    def forward(self, text: Tensor, z: Tensor, eps: Tensor, pictures: Tensor, first: int) -> Fakes:
        """As Stage1Generator's, but every other row, from row `first` on, has the z of its picture.

        The real `pictures` (n, 3, S, S) in [-1, 1] are those of the first n texts. The z of a row that is read is
        mu + sigma * z. Where the others' is as it was read, its text condition is drawn as theirs, since pictures are
        generated from such ones; where it is from N(0, 1), the condition is the mean: eps is 0 there.
        """
        read = slice(first, len(pictures), 2)
        reading: Reading = self.reader(pictures[read], text[read])
        noise = self.generator.noise
        if noise is None:
            code, eps = z.clone(), eps.clone()
            eps[read] = 0
        else:
            code = noise(z)
            noise.note(reading)
        code[read] = (reading.mu + reading.log_sigma.exp() * z[read]).to(z.dtype)
        return self.generator.from_code(text, code, eps)._replace(reading=reading)

    def discriminator_condition(self, text: Tensor) -> Tensor:
        """The generator's."""
        return self.generator.discriminator_condition(text)


class _Block(nn.Module):
    """(N, inputs, H, W) -> (N, outputs, H / 2, W / 2), residual."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.halve = initialise_by_inputs(_HalvingConv(inputs, outputs), 2.0)
        self.skip = initialise_by_inputs(nn.Conv2d(inputs, outputs, 1), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        both: Tensor = self.halve(_activated(x)) + self.skip(F.avg_pool2d(x, 2))
        return both * math.sqrt(0.5)


class _HalvingConv(nn.Conv2d):
    """A 3x3 convolution and the mean of every 2x2 pixels of what it makes, as one 4x4 convolution of stride 2.

    With 16 multiplications for an output pixel and a pair of channels instead of 36, as UpsampleConv's transposed form.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        kernel = F.pad(self.weight, (1, 1, 1, 1))
        rows = kernel[:, :, 1:] + kernel[:, :, :-1]
        return F.conv2d(input, (rows[..., 1:] + rows[..., :-1]) / 4, self.bias, stride=2, padding=1)


def _into_channels(pictures: Tensor) -> Tensor:
    """(N, 3, S, S) -> (N, 12, S / 2, S / 2): F.pixel_unshuffle by 2, which leaves a batch of no rows as it is."""
    n, channels, height, width = pictures.shape
    cells = pictures.reshape(n, channels, height // 2, 2, width // 2, 2).permute(0, 1, 3, 5, 2, 4)
    return cells.reshape(n, 4 * channels, height // 2, width // 2)


def _activated(x: Tensor) -> Tensor:
    return F.leaky_relu(x, LEAKY_SLOPE)
