"""Noise in place of pictures, what an attention check shows beside real ones."""

from __future__ import annotations

import numpy as np
from PIL import Image

from stackgan_dist.randomness import uniform

_NOISE_STREAM = 0x5204


def noise_row(images: int, side: int, seed: int, question: int, method: int) -> Image.Image:
    """`images` squares of noise in one row, a function of its arguments."""
    pixels = np.arange(3 * side * side * images)
    noise = (uniform(seed, _NOISE_STREAM, question, method, pixels) * 256).astype(np.uint8)
    squares = noise.reshape(images, 3, side, side).transpose(2, 0, 3, 1)
    return Image.fromarray(np.ascontiguousarray(squares.reshape(side, images * side, 3)))
