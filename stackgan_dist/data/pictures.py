"""Pictures as a score sees them: real ones of a packed set, and noise, numbered and dealt out to ranks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from stackgan_dist.data.captions import Caption, CaptionSet
from stackgan_dist.errors import UserError
from stackgan_dist.randomness import Stream, integers, permutation, uniform


def middle(picture: NDArray[np.uint8], image_size: int) -> NDArray[np.uint8]:
    """The middle (image_size, image_size, 3) of a stored picture (side, side, 3): what a generator is to make."""
    margin = (len(picture) - image_size) // 2
    return picture[margin : margin + image_size, margin : margin + image_size]


def decoded(captions: CaptionSet, caption: Caption) -> NDArray[np.uint8]:
    """The stored picture (side, side, 3) of `caption`; UserError when it is damaged or not as large as promised."""
    where = caption.meta.get("id", "a picture")
    try:
        picture: NDArray[np.uint8] = simplejpeg.decode_jpeg(caption.jpeg, colorspace="RGB")
    except ValueError as error:
        raise UserError(f"{where} cannot be decoded: {error}; pack the set again") from error
    if picture.shape[0] != captions.index.image_size or picture.shape[1] != captions.index.image_size:
        raise UserError(
            f"{where} is {picture.shape[1]}x{picture.shape[0]}, its index says {captions.index.image_size}; pack the "
            "set again"
        )
    return picture


def _images(captions: CaptionSet, chosen: Sequence[Caption], image_size: int) -> Tensor:
    """The middles of the pictures of some captions, (n, 3, S, S) in [-1, 1]."""
    pixels = np.stack([middle(decoded(captions, caption), image_size) for caption in chosen])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


@dataclass(frozen=True)
class RealBatch:
    """Some numbered real pictures."""

    numbers: Tensor
    """(n,), int64."""
    images: Tensor
    """(n, 3, S, S) in [-1, 1]: the middle of the stored pictures."""
    captions: list[Caption]
    """One of each picture's captions."""
    mean_text: NDArray[np.float32]
    """(n, dim): the mean embedding of all captions of each picture."""


class RealPictures:
    """The first `count` (default: all) real pictures of a set, in an order of their own, without crops at random.

    Args:
        captions: the set.
        image_size: of the crops: what the generator makes.
        batch_size: pictures in a batch. Whole batches are dealt out, so that each is computed alike on any ranks.
        seed: chooses order and captions.
        count: at most this many.
    """

    def __init__(
        self, captions: CaptionSet, image_size: int, batch_size: int, seed: int, count: int | None = None
    ) -> None:
        self._captions, self._image_size, self._batch_size, self._seed = captions, image_size, batch_size, seed
        self.count = len(captions) if count is None else min(count, len(captions))
        self._order = permutation(len(captions), seed, Stream.SCORE_REAL)

    def batches(self, rank: int, world_size: int) -> Iterator[RealBatch]:
        """The batches of one rank."""
        for begin in range(rank * self._batch_size, self.count, world_size * self._batch_size):
            numbers = range(begin, min(begin + self._batch_size, self.count))
            pictures = self._order[begin : numbers.stop].tolist()
            chosen = integers(self._captions.index.captions_per_image, self._seed, Stream.SCORE_REAL, 1, list(numbers))
            captions = [self._captions.caption(p, int(c)) for p, c in zip(pictures, chosen, strict=True)]
            yield RealBatch(
                torch.tensor(numbers),
                _images(self._captions, captions, self._image_size),
                captions,
                np.stack([self._captions.mean_embedding(p) for p in pictures]),
            )


class PicturesOfClasses:
    """Groups of real pictures of one class each, which share what a sentence says of them and nothing else.

    Args:
        captions: the set.
        image_size: of the crops: what the generator makes.
        groups: at most so many; the same class may have several.
        per_group: different pictures in each.
        batch_size: pictures in a batch, which holds whole groups.
        seed: chooses the order.
    """

    def __init__(
        self, captions: CaptionSet, image_size: int, groups: int, per_group: int, batch_size: int, seed: int
    ) -> None:
        self._captions, self._image_size, self.per_group = captions, image_size, per_group
        self._groups = list(itertools.islice(self._whole_groups(seed), groups))
        self._batch = max(1, batch_size // per_group)

    def _whole_groups(self, seed: int) -> Iterator[list[int]]:
        """Numbers of pictures, as they come in an order of their own; none where no two pictures are of one class."""
        begun: dict[str, list[int]] = {}
        for picture in permutation(len(self._captions), seed, Stream.SCORE_REAL).tolist():
            name = self._captions.class_name(picture)
            group = begun.setdefault(name, [])
            group.append(picture)
            if len(group) == self.per_group:
                yield begun.pop(name)

    def batches(self, rank: int, world_size: int) -> Iterator[Tensor]:
        """The batches of one rank: images (groups x per_group, 3, S, S) in [-1, 1]."""
        for begin in range(rank * self._batch, len(self._groups), world_size * self._batch):
            pictures = itertools.chain.from_iterable(self._groups[begin : begin + self._batch])
            chosen = [self._captions.caption(picture, 0) for picture in pictures]
            yield _images(self._captions, chosen, self._image_size)


@dataclass(frozen=True)
class NoiseBatch:
    """Some numbered pictures."""

    numbers: Tensor
    """(n,), int64."""
    images: Tensor
    """(n, 3, S, S), every value uniform in [-1, 1] and independent of all others."""


def noise_pictures(
    count: int, image_size: int, batch_size: int, seed: int, rank: int, world_size: int
) -> Iterator[NoiseBatch]:
    """One rank's batches of `count` pictures of noise; whole batches are dealt out."""
    for begin in range(rank * batch_size, count, world_size * batch_size):
        numbers = np.arange(begin, min(begin + batch_size, count))
        values = uniform(seed, Stream.NOISE_PICTURE, numbers[:, None], np.arange(3 * image_size**2))
        images = torch.from_numpy(2 * values - 1).float().view(-1, 3, image_size, image_size)
        yield NoiseBatch(torch.from_numpy(numbers), images)
