"""Generating pictures from texts. Picture k has noise of its own, whichever rank generates it and in whatever batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stackgan_dist.data.captions import Caption, CaptionSet
from stackgan_dist.data.index import STORED_PER_CROPPED
from stackgan_dist.data.placement import View, check_places, place_in_view
from stackgan_dist.data.rows import gaussian
from stackgan_dist.errors import UserError
from stackgan_dist.models import Fakes, Generator, ModelConfig
from stackgan_dist.randomness import Stream, integers, permutation


@torch.no_grad()
def generate_pictures(
    generator: Generator,
    model: ModelConfig,
    text: NDArray[np.float32],
    numbers: Sequence[int],
    seed: int,
    place: NDArray[np.float32] | None = None,
    *,
    draw_condition: bool = True,
) -> Fakes:
    """Pictures `numbers` of those with this `seed`, one for each row of `text` (n, dim).

    The generator is switched to eval mode for it and back. `place` (n, *model.placement.shape) is for models that are
    conditioned on where the object is; raises UserError when it is missing. Without `draw_condition` the text condition
    is the mean of its distribution instead of drawn from it.
    """
    if model.placement is not None and place is None:
        raise UserError(
            f"{model.title} is conditioned on where the object is, by a {model.placement.kind.removesuffix('s')} or "
            "more, which was not given: python -m stackgan_dist.generate takes it with --place"
        )
    weights = next(generator.parameters())
    z = gaussian(seed, Stream.SCORE_NOISE, 0, numbers, model.noise_dim)
    eps = gaussian(seed, Stream.SCORE_CONDITIONING, 0, numbers, model.augmentations * model.condition_dim)
    eps = eps if draw_condition else np.zeros_like(eps)
    given = [text, z, eps.reshape(len(text), model.augmentations, model.condition_dim)]
    if place is not None and model.placement is not None:
        given.append(place)
    was_training = generator.training
    generator.eval()
    try:
        fakes: Fakes = generator(*(torch.from_numpy(array).to(weights.device, weights.dtype) for array in given))
    finally:
        generator.train(was_training)
    return fakes


def between(first: NDArray[np.float32], last: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """Embeddings (steps, dim) on the straight line from `first` (dim,) to `last`, both included (paper, figure 8)."""
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return (1 - share) * first + share * last


def choose_caption(captions: CaptionSet, number: int, seed: int, order: NDArray[np.int64]) -> Caption:
    """The caption that picture `number` is generated from: one of those of the next picture in `order`."""
    return captions.caption(
        int(order[number % len(order)]),
        int(integers(captions.index.captions_per_image, seed, Stream.SCORE_CAPTION, number)),
    )


def places_of(captions: Sequence[Caption], model: ModelConfig) -> NDArray[np.float32] | None:
    """Where the objects of the captions' own pictures are, in their middle crops; None for models without.

    Raises UserError when none of them has what the model is conditioned on.
    """
    if model.placement is None:
        return None
    metas = [caption.meta for caption in captions]
    check_places(metas, model.placement, "the captions' data set")
    return np.stack([place_in_view(meta, model.placement, View.centre(1 / STORED_PER_CROPPED)) for meta in metas])


@dataclass(frozen=True)
class GeneratedBatch:
    """Some of the GeneratedPictures."""

    numbers: Tensor
    """(n,), int64."""
    images: Tensor
    """(n, 3, S, S) in [-1, 1]."""
    captions: list[Caption]
    """What they were generated from."""
    low_resolution: Tensor | None
    """(n, 3, 64, 64) in [-1, 1]: the Stage-I images that Stage-II started from; None in Stage-I."""


class GeneratedPictures:
    """`samples` pictures generated from the captions of a data set, divided among ranks.

    Whole batches are dealt out, so that every batch is computed alike on any number of ranks.

    Args:
        generator: in any mode.
        model: what the generator is made of.
        captions: to generate from.
        samples: pictures of all ranks together.
        batch_size: pictures in a batch.
        seed: chooses captions and noise.
        per_caption: so many pictures one after the other have the same caption; a batch holds all of a caption's.
    """

    def __init__(
        self,
        generator: Generator,
        model: ModelConfig,
        captions: CaptionSet,
        samples: int,
        batch_size: int,
        seed: int,
        per_caption: int = 1,
    ) -> None:
        self._generator, self._model, self._captions = generator, model, captions
        self._samples, self._seed, self._per_caption = samples, seed, per_caption
        self._batch_size = max(1, batch_size // per_caption) * per_caption
        self._order = permutation(len(captions), seed, Stream.SCORE_SAMPLE)

    def batches(self, rank: int, world_size: int) -> Iterator[GeneratedBatch]:
        """The batches of one rank."""
        for begin in range(rank * self._batch_size, self._samples, world_size * self._batch_size):
            numbers = range(begin, min(begin + self._batch_size, self._samples))
            chosen = [choose_caption(self._captions, n // self._per_caption, self._seed, self._order) for n in numbers]
            text = np.stack([caption.embedding for caption in chosen])
            place = places_of(chosen, self._model)
            fakes = generate_pictures(self._generator, self._model, text, numbers, self._seed, place)
            yield GeneratedBatch(torch.tensor(numbers), fakes.image, chosen, fakes.low_resolution)
