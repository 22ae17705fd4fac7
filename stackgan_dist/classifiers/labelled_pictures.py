"""Pictures of a packed set with their classes, divided into some to learn from and some held out to be tested on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stackgan_dist.data.captions import Caption, CaptionSet
from stackgan_dist.data.pictures import decoded, middle
from stackgan_dist.errors import UserError
from stackgan_dist.randomness import Stream, uniform


@dataclass(frozen=True)
class LabelledBatch:
    """Some views of numbered pictures."""

    numbers: Tensor
    """(n,), int64: of the pictures."""
    images: Tensor
    """(n, 3, S, S) in [-1, 1]."""
    labels: Tensor
    """(n,), int64: place of each picture's class among the set's."""
    held_out: Tensor
    """(n,), bool."""


class _Decoded(NamedTuple):
    """A picture as it was packed."""

    number: int
    pixels: np.ndarray
    """(P, P, 3), uint8."""
    label: int
    held_out: bool


class LabelledPictures:
    """All pictures of a set, dealt out to ranks in whole batches.

    Whether a picture is held out is a hash of its id: it stays so at every size, in every packing and on any ranks.

    Args:
        captions: the set.
        image_size: of the crops.
        batch_size: pictures in a batch.
        held_out: share of the pictures, in [0, 1).
        seed: chooses the held-out pictures, crops and flips.

    Raises UserError when the set knows fewer than 2 classes.
    """

    def __init__(self, captions: CaptionSet, image_size: int, batch_size: int, held_out: float, seed: int) -> None:
        self.classes = captions.index.classes
        if len(self.classes) < 2:
            raise UserError(f"a classifier needs at least 2 classes, {captions.index.name} has {len(self.classes)}")
        self._label = {name: label for label, name in enumerate(self.classes)}
        self._captions, self._image_size, self._batch_size = captions, image_size, batch_size
        self._held_out, self._seed = held_out, seed

    def __len__(self) -> int:
        return len(self._captions)

    def views(self, count: int, rank: int, world_size: int) -> Iterator[LabelledBatch]:
        """`count` views of each of a rank's pictures, batch by batch: its middle, then crops at random, some mirrored.

        Held-out pictures are seen from the middle only.
        """
        for begin in range(rank * self._batch_size, len(self), world_size * self._batch_size):
            everything = self._decoded(np.arange(begin, min(begin + self._batch_size, len(self))))
            for view in range(count):
                seen = everything if view == 0 else [one for one in everything if not one.held_out]
                if seen:
                    yield self._batch(seen, view)

    def batch(self, numbers: Sequence[int], view: int) -> LabelledBatch:
        """One view of the pictures of these `numbers`, at least one: 0 is the middle, any other a crop at random."""
        return self._batch(self._decoded(numbers), view)

    def _decoded(self, numbers: Iterable[int]) -> list[_Decoded]:
        captions = [(int(number), self._captions.caption(int(number), 0)) for number in numbers]
        return [
            _Decoded(number, decoded(self._captions, caption), self._label_of(caption), self._is_held_out(caption))
            for number, caption in captions
        ]

    def _batch(self, pictures: list[_Decoded], view: int) -> LabelledBatch:
        crops = np.stack([self._view(one.pixels, one.number, view) for one in pictures])
        return LabelledBatch(
            torch.tensor([one.number for one in pictures]),
            torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1,
            torch.tensor([one.label for one in pictures]),
            torch.tensor([one.held_out for one in pictures]),
        )

    def _view(self, picture: np.ndarray, number: int, view: int) -> np.ndarray:
        if view == 0:
            return middle(picture, self._image_size)
        slack = len(picture) - self._image_size
        drawn = uniform(self._seed, Stream.CLASSIFIER_CROP, number, view, np.arange(3))
        top, left = int(drawn[0] * (slack + 1)), int(drawn[1] * (slack + 1))
        crop = picture[top : top + self._image_size, left : left + self._image_size]
        return crop[:, ::-1] if drawn[2] < 0.5 else crop

    def _label_of(self, caption: Caption) -> int:
        try:
            return self._label[caption.class_name]
        except KeyError:
            raise UserError(
                f"{caption.meta.get('id', 'a picture')} is of class {caption.class_name!r}, which the index does not "
                "name: pack the set again"
            ) from None

    def _is_held_out(self, caption: Caption) -> bool:
        name = str(caption.meta.get("id", caption.sentence))
        number = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")
        return bool(uniform(self._seed, Stream.HELD_OUT, np.uint64(number)) < self._held_out)
