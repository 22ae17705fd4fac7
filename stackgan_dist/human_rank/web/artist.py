"""Draws sentences for the try page: a few pictures at a time, so that there is progress to show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from stackgan_dist.errors import UserError
from stackgan_dist.generation.generate import draw
from stackgan_dist.generation.grid import to_pictures
from stackgan_dist.runs.trained import Trained

_BATCH = 8
MIXTURES = 9
"""Steps of the slider between two sentences, both ends included."""


@dataclass(frozen=True)
class Wish:
    """What somebody wants to see."""

    sentence: str
    other: str | None
    """A second sentence to go to in steps; None for one sentence alone."""
    seed: int
    count: int
    """Pictures per sentence; picture j has the same noise at every step."""

    @property
    def steps(self) -> int:
        """How many mixtures of the two sentences are drawn."""
        return 1 if self.other is None else MIXTURES


@dataclass(frozen=True)
class Drawn:
    """One picture."""

    stages: tuple[Image.Image, ...]
    """Stage-I's alone, or Stage-I's and Stage-II's."""


class Artist:
    """A run's generator and its text encoder.

    Raises UserError for a model that has to be told where the object is: a page of sentences cannot.
    """

    def __init__(self, trained: Trained, device: torch.device) -> None:
        if trained.config.model.placement is not None:
            raise UserError(
                f"{trained.folder.path} is a {trained.config.model.title} run, which is told where the object is, and "
                "the page only takes sentences; draw with python -m stackgan_dist.generate and --place"
            )
        self.trained = trained
        self._encoder = trained.encoder()
        self._generator = trained.generator(device)

    @property
    def stages(self) -> int:
        """1, or 2 where Stage-I's pictures stand beside Stage-II's."""
        return self.trained.config.model.stage

    @property
    def headings(self) -> list[str]:
        """What the pictures of the stages are called."""
        title = self.trained.config.model.title.replace("stage", "Stage")
        return [title] if self.stages == 1 else ["Stage-I", title]

    def read(self, sentence: str) -> None:
        """UserError when the encoder cannot make anything of the sentence."""
        self._encoder.encode([sentence])

    def draw(self, wish: Wish) -> Iterator[list[Drawn]]:
        """All pictures, step by step, in lists of a few.

        Between two sentences their embeddings are mixed linearly, as in the paper (section 4.5, figure 8).
        """
        ends = self._encoder.encode([wish.sentence] if wish.other is None else [wish.sentence, wish.other])
        share = np.linspace(0, 1, wish.steps, dtype=np.float32)[:, None]
        text = np.repeat((1 - share) * ends[0] + share * ends[-1], wish.count, axis=0)
        numbers = list(range(wish.count)) * wish.steps
        for begin in range(0, len(numbers), _BATCH):
            part = slice(begin, begin + _BATCH)
            fakes = draw(self._generator, self.trained.config.model, text[part], numbers[part], wish.seed)
            stages = [fakes.image] if fakes.low_resolution is None else [fakes.low_resolution, fakes.image]
            pictures = [to_pictures(images) for images in stages]
            yield [Drawn(of_stages) for of_stages in zip(*pictures, strict=True)]
