"""Attention checks: real pictures, and noise in place of the other methods' pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from stackgan_dist.generation.grid import side_by_side
from stackgan_dist.human_rank.study.folder import StudyFolder
from stackgan_dist.randomness import uniform

_NOISE_STREAM = 0x5204


def write_check(folder: StudyFolder, question: int, real: Sequence[Image.Image], methods: int, seed: int) -> None:
    """`real`, squares of one size, as the first method's pictures of `question`; noise as those of the others."""
    side_by_side(real).save(folder.picture_file(question, 0))
    for method in range(1, methods):
        noise_row(len(real), real[0].width, seed, question, method).save(folder.picture_file(question, method))


def noise_row(images: int, side: int, seed: int, question: int, method: int) -> Image.Image:
    """`images` squares of noise in one row, a function of its arguments."""
    pixels = np.arange(3 * side * side * images)
    noise = (uniform(seed, _NOISE_STREAM, question, method, pixels) * 256).astype(np.uint8)
    squares = noise.reshape(images, 3, side, side).transpose(2, 0, 3, 1)
    return Image.fromarray(np.ascontiguousarray(squares.reshape(side, images * side, 3)))
