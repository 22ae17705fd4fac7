"""Sentences in, pictures out: a trained generator with its text encoder. The command `generate` is this, and files."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stackgan_dist.config import Config
from stackgan_dist.data.placement import Place, place_from
from stackgan_dist.data.words import foreign
from stackgan_dist.devices import default_device, usable_device
from stackgan_dist.errors import UserError
from stackgan_dist.generation.generate import between, generate_pictures
from stackgan_dist.generation.grid import to_pictures
from stackgan_dist.models import Generator
from stackgan_dist.runs.trained import Trained, load_trained
from stackgan_dist.storage.folder import FolderLike
from stackgan_dist.text import TextEncoder

Sentences = list[str] | tuple[str, ...]
AnyPlace = Place | NDArray[np.float32]
"""An array as batches of a data set hold it: (*placement.shape)."""

_BATCH = 16


class StagedImages(NamedTuple):
    """Pictures of one sentence, on the generator's device."""

    image: Tensor
    """(count, 3, S, S) in [-1, 1]."""
    low_resolution: Tensor | None
    """(count, 3, 64, 64) in [-1, 1]: the Stage-I images that Stage-II started from; None in Stage-I."""


def load(
    where: FolderLike,
    *,
    device: str | torch.device | None = None,
    weights: Literal["ema", "raw"] = "ema",
    encoder: str | None = None,
) -> TextToImage:
    """The newest good generator at `where`, ready to generate.

    Args:
        where: a path or URL of a run, of a folder with the runs of both stages (the last stage is taken), of a
            checkpoint, or of an exported folder.
        device: to generate on, such as "cpu" or "cuda:1"; None takes CUDA where it is there.
        weights: "ema" takes the generator's moving average, "raw" its weights as they were at the last step.
        encoder: its text encoder, such as "hf:FOLDER", where that is not found by itself.

    Raises UserError when there is none. A damaged checkpoint that was passed over draws a warning.
    """
    passed_over: list[str] = []
    trained = load_trained(where, passed_over.append, raw=weights == "raw")
    for line in passed_over:
        warnings.warn(line, stacklevel=2)
    return TextToImage(trained, usable_device(default_device() if device is None else str(device)), encoder)


class TextToImage:
    """A trained generator with its text encoder.

    Picture k of a sentence has noise k of the seed, whatever else is generated: pictures of two sentences, or of two
    generators, can be compared one by one, and the command `generate` makes the same ones. Its seed is that here.

    Args:
        trained: the generator's weights, configuration and place.
        device: to generate on.
        encoder: its text encoder, where that is not found by itself.
        report: gets a line about each sentence that has none of the words it was trained on.
    """

    def __init__(
        self,
        trained: Trained,
        device: torch.device,
        encoder: str | None = None,
        report: Callable[[str], None] = lambda line: warnings.warn(line, stacklevel=4),
    ) -> None:
        self.trained = trained
        self._report = report
        self._given_encoder = encoder
        self.device = device
        self.network: Generator = trained.generator(device)
        """In eval mode, in float32: (text, z, eps[, place]) -> Fakes."""

    def __repr__(self) -> str:
        return f"<{self.config.model.title} of {self.image_size} px, step {self.step:,}: {self.checkpoint}>"

    @property
    def config(self) -> Config:
        """What the run was configured with."""
        return self.trained.config

    @property
    def checkpoint(self) -> str:
        """The path or URL of the checkpoint."""
        return self.trained.checkpoint

    @property
    def step(self) -> int:
        """Of the checkpoint: how many steps it was trained."""
        return self.trained.step

    @property
    def image_size(self) -> int:
        """The side of a picture in pixels."""
        return self.config.model.image_size

    @functools.cached_property
    def encoder(self) -> TextEncoder:
        """The text encoder that it was trained with; UserError where it is not there."""
        return self.trained.encoder(self._given_encoder)

    @functools.cached_property
    def _words(self) -> frozenset[str] | None:
        return self.trained.words()

    def encode(self, sentences: str | Sentences) -> NDArray[np.float32]:
        """The embedding (dim,) of a sentence, or those (n, dim) of n sentences; float32, of mean square 1 per entry.

        Raises UserError for a sentence that cannot be encoded; one without any word of the captions that it was
        trained on draws a warning.
        """
        if isinstance(sentences, str):
            embedding: NDArray[np.float32] = self.encode([sentences])[0]
            return embedding
        check_sentences(sentences)
        embeddings = self.encoder.encode(sentences)
        for sentence in foreign(sentences, self._words) if self._words else []:
            self._report(
                f"{sentence!r} has no word of the captions that this generator was trained on, so its pictures may "
                "have nothing to do with it"
            )
        return embeddings

    @overload
    def generate(
        self,
        sentences: str,
        *,
        count: int = ...,
        seed: int = ...,
        place: AnyPlace | None = ...,
        output_type: Literal["pil"] = ...,
    ) -> list[Image.Image]: ...
    @overload
    def generate(
        self,
        sentences: Sentences,
        *,
        count: int = ...,
        seed: int = ...,
        place: AnyPlace | None = ...,
        output_type: Literal["pil"] = ...,
    ) -> list[list[Image.Image]]: ...
    @overload
    def generate(
        self,
        sentences: str | Sentences,
        *,
        count: int = ...,
        seed: int = ...,
        place: AnyPlace | None = ...,
        output_type: Literal["pt"],
    ) -> Tensor: ...
    def generate(
        self,
        sentences: str | Sentences,
        *,
        count: int = 4,
        seed: int = 0,
        place: AnyPlace | None = None,
        output_type: Literal["pil", "pt"] = "pil",
    ) -> list[Image.Image] | list[list[Image.Image]] | Tensor:
        """Pictures of a sentence, or of each of several.

        Args:
            sentences: one, or a list of them.
            count: pictures of each sentence; they differ by their noise.
            seed: of the noise, from 0 on; another one gives other pictures.
            place: for a model that is conditioned on where the object is (GAWWN): its box (left, top, width, height),
                or the (x, y) of keypoints by their names, in fractions of the picture's side.
            output_type: "pil" for pictures of Pillow, "pt" for a tensor on the generator's device.

        Returns:
            A list of pictures for one sentence, a list of such lists for several. As a tensor: (count, 3, S, S) or
            (n, count, 3, S, S), float32 in [-1, 1].

        Raises UserError for a sentence that cannot be encoded, and for a count, a seed or a place out of its range.
        """
        if output_type not in ("pil", "pt"):
            raise UserError(f"output_type is {output_type!r}; take 'pil' for pictures or 'pt' for tensors")
        if isinstance(sentences, str):
            images = self.stages(sentences, count=count, seed=seed, place=place).image
            return images if output_type == "pt" else to_pictures(images)
        texts = self.encode(sentences)
        every = [self.stages(text, count=count, seed=seed, place=place).image for text in texts]
        return torch.stack(every) if output_type == "pt" else [to_pictures(images) for images in every]

    def stages(
        self, text: str | NDArray[np.float32], *, count: int = 4, seed: int = 0, place: AnyPlace | None = None
    ) -> StagedImages:
        """Pictures of a sentence, or of its embedding (dim,), with the Stage-I pictures that Stage-II started from.

        See `generate` for the arguments and for what is raised.
        """
        _check_whole("count", count, 1)
        _check_whole("seed", seed, 0)
        embedding = self.encode(text) if isinstance(text, str) else self._checked(text)
        return self._pictures(embedding[None].repeat(count, axis=0), range(count), seed, place)

    def interpolate(
        self,
        first: str | NDArray[np.float32],
        last: str | NDArray[np.float32],
        *,
        steps: int = 8,
        seed: int = 0,
        noise: int = 0,
        place: AnyPlace | None = None,
    ) -> list[Image.Image]:
        """Pictures of embeddings on the straight line between two sentences, all with the same noise (paper, figure 8).

        The first and the last are picture `noise` of what `generate` makes of the two sentences.
        """
        _check_whole("steps", steps, 2)
        _check_whole("seed", seed, 0)
        _check_whole("noise", noise, 0)
        ends = [self.encode(end) if isinstance(end, str) else self._checked(end) for end in (first, last)]
        return to_pictures(self._pictures(between(ends[0], ends[1], steps), [noise] * steps, seed, place).image)

    def _pictures(
        self, texts: NDArray[np.float32], numbers: range | list[int], seed: int, place: AnyPlace | None
    ) -> StagedImages:
        placed = self._placed(place)
        finals, lows = [], []
        for begin in range(0, len(numbers), _BATCH):
            part = slice(begin, begin + _BATCH)
            places = None if placed is None else np.stack([placed] * len(numbers[part]))
            fakes = generate_pictures(self.network, self.config.model, texts[part], numbers[part], seed, places)
            finals.append(fakes.image)
            if fakes.low_resolution is not None:
                lows.append(fakes.low_resolution)
        return StagedImages(torch.cat(finals), torch.cat(lows) if lows else None)

    def _placed(self, place: AnyPlace | None) -> NDArray[np.float32] | None:
        placement = self.config.model.placement
        if placement is None:
            if place is not None:
                raise UserError(f"a place is for models that are conditioned on it; {self.config.model.title} is not")
            return None
        if isinstance(place, np.ndarray):
            if place.shape != placement.shape:
                raise UserError(f"place has the shape {place.shape}; this model needs {placement.shape}")
            return place.astype(np.float32)
        return place_from(() if place is None else place, placement, "place", repr(place))

    def _checked(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        dim = self.trained.data.text_dim
        if embedding.shape != (dim,):
            raise UserError(f"an embedding has the shape {embedding.shape}; this generator was trained on ({dim},)")
        return embedding.astype(np.float32)


def check_sentences(sentences: Sentences) -> None:
    """UserError where there is no sentence, or one is empty."""
    if not sentences:
        raise UserError('there is nothing to generate; give one or more sentences, e.g. "a small red bird"')
    for number, sentence in enumerate(sentences, 1):
        if not sentence.strip():
            raise UserError(f'sentence {number} is empty; say what to generate, e.g. "a small red bird"')


def _check_whole(name: str, number: int, at_least: int) -> None:
    if not at_least <= number < 2**63:
        raise UserError(f"{name} is {number}, it must be a whole number from {at_least} on, below 2**63")
