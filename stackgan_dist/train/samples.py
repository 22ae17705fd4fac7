"""Grids of fixed captions and noise, generated while a run trains: the same birds, getting better."""

from __future__ import annotations

import numpy as np
from PIL import Image

from stackgan_dist.data.captions import CaptionSet
from stackgan_dist.data.pictures import decoded, middle
from stackgan_dist.generation.generate import first_captions, generate_pictures, places_of
from stackgan_dist.generation.grid import labelled_grid, to_pictures
from stackgan_dist.models import Generator, ModelConfig

_CELL = 128


class FixedSamples:
    """Captions and noise that stay the same throughout a run.

    Args:
        captions: where to choose from, best of classes that are not trained on.
        count: how many.
        model: what the generators are.
        seed: chooses captions and noise.
    """

    def __init__(self, captions: CaptionSet, count: int, model: ModelConfig, seed: int) -> None:
        chosen = first_captions(captions, count, seed)
        self._sentences = [caption.sentence for caption in chosen]
        self._text = np.stack([caption.embedding for caption in chosen])
        self._place = places_of(chosen, model)
        self._real = [Image.fromarray(middle(decoded(captions, caption), model.image_size)) for caption in chosen]
        self._model, self._seed = model, seed

    def grid(self, generators: dict[str, Generator]) -> Image.Image:
        """One column for each generator, after the Stage-I picture below it if any, beside the real picture."""
        columns: dict[str, list[Image.Image]] = {}
        for name, generator in generators.items():
            fakes = generate_pictures(
                generator, self._model, self._text, range(len(self._text)), self._seed, self._place
            )
            if fakes.low_resolution is not None:
                columns.setdefault("stage-I", to_pictures(fakes.low_resolution))
            columns[name] = to_pictures(fakes.image)
        columns["real"] = self._real
        return labelled_grid(list(zip(*columns.values(), strict=True)), self._sentences, list(columns), _CELL)
