"""Generates from sentences for the try page: a few pictures at a time, so that there is progress to show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from stackgan_dist.errors import UserError
from stackgan_dist.generation.generate import between, generate_pictures
from stackgan_dist.generation.grid import stage_headings, to_pictures
from stackgan_dist.runs.trained import Trained

_BATCH = 8
MIXTURES = 9
"""Steps of the slider between two sentences, both ends included."""


@dataclass(frozen=True)
class Prompt:
    """What to generate."""

    sentence: str
    other: str | None
    """A second sentence to go to in steps; None for one sentence alone."""
    seed: int
    count: int
    """Pictures per sentence; picture j has the same noise at every step."""

    @property
    def steps(self) -> int:
        """How many mixtures of the two sentences there are."""
        return 1 if self.other is None else MIXTURES


@dataclass(frozen=True)
class StagedPicture:
    """A generated picture."""

    stages: tuple[Image.Image, ...]
    """Stage-I's alone, or Stage-I's and Stage-II's."""


class PictureGenerator:
    """A run's generator and its text encoder.

    Raises UserError for a model that is conditioned on where the object is: the page takes sentences only.
    """

    def __init__(self, trained: Trained, device: torch.device) -> None:
        if trained.config.model.placement is not None:
            raise UserError(
                f"{trained.folder.path} is a {trained.config.model.title} run, which is conditioned on where the "
                "object is, and the page only takes sentences; use python -m stackgan_dist.generate and --place"
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
        return stage_headings(self.trained.config.model.title, both=self.stages == 2)

    def read(self, sentence: str) -> None:
        """UserError when the encoder cannot make anything of the sentence."""
        self._encoder.encode([sentence])

    def pictures(self, prompt: Prompt) -> Iterator[list[StagedPicture]]:
        """All pictures, step by step, in lists of a few.

        Between two sentences their embeddings are mixed linearly, as in the paper (section 4.5, figure 8).
        """
        ends = self._encoder.encode([prompt.sentence] if prompt.other is None else [prompt.sentence, prompt.other])
        text = np.repeat(between(ends[0], ends[-1], prompt.steps), prompt.count, axis=0)
        numbers = list(range(prompt.count)) * prompt.steps
        for begin in range(0, len(numbers), _BATCH):
            part = slice(begin, begin + _BATCH)
            fakes = generate_pictures(
                self._generator, self.trained.config.model, text[part], numbers[part], prompt.seed
            )
            stages = [fakes.image] if fakes.low_resolution is None else [fakes.low_resolution, fakes.image]
            pictures = [to_pictures(images) for images in stages]
            yield [StagedPicture(of_stages) for of_stages in zip(*pictures, strict=True)]
