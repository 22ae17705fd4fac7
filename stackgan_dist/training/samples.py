"""Grids of fixed captions and noise, drawn while a run trains: the same birds, getting better."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from stackgan_dist.data import draws
from stackgan_dist.data.captions import CaptionSet
from stackgan_dist.data.draws import Stream
from stackgan_dist.data.randomness import permutation
from stackgan_dist.evaluation.grid import labelled_grid, to_picture, to_pixels
from stackgan_dist.models import Generator, ModelConfig

_CELL = 128


class FixedSamples:
    """Captions and noise that stay the same throughout a run.

    Args:
        captions: where to choose from, best of classes that are not trained on.
        count: how many.
        model: gives the noise its shape.
        seed: chooses captions and noise.
        device: where the generator is.
        dtype: of its weights.
    """

    def __init__(
        self,
        captions: CaptionSet,
        count: int,
        model: ModelConfig,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        pictures = permutation(len(captions), seed, Stream.SCORE_SAMPLE)[:count]
        chosen = [captions.caption(int(picture), n) for n, picture in enumerate(pictures)]
        rows = range(len(chosen))
        self._sentences = [caption.sentence for caption in chosen]
        self._real = [Image.open(io.BytesIO(caption.jpeg)).convert("RGB") for caption in chosen]
        text = np.stack([caption.embedding for caption in chosen])
        z = draws.gaussian(seed, Stream.SCORE_NOISE, 0, rows, model.noise_dim)
        eps = draws.gaussian(seed, Stream.SCORE_CONDITIONING, 0, rows, model.stage * model.condition_dim)
        self._text, self._z, self._eps = (
            torch.from_numpy(array).to(device, dtype)
            for array in (text, z, eps.reshape(len(chosen), model.stage, model.condition_dim))
        )

    @torch.no_grad()
    def draw(self, generators: dict[str, Generator]) -> Image.Image:
        """One column for each generator (and for the Stage-I image below it), beside a real picture."""
        columns: dict[str, list[Image.Image]] = {}
        for name, generator in generators.items():
            was_training = generator.training
            generator.eval()
            fakes = generator(self._text, self._z, self._eps)
            generator.train(was_training)
            if fakes.low_resolution is not None and "stage-I" not in columns:
                columns["stage-I"] = [to_picture(pixels) for pixels in to_pixels(fakes.low_resolution)]
            columns[name] = [to_picture(pixels) for pixels in to_pixels(fakes.image)]
        columns["real"] = self._real
        return labelled_grid(list(zip(*columns.values(), strict=True)), self._sentences, list(columns), _CELL)
