"""The pool of texts out of which a picture has to pick its own: the wrong answers of the contrastive term.

The pool of a step is the same for all rows of the global batch, hence on all ranks, and a pure function of (seed,
step): no row depends on which others it is with, and nothing is gathered. It is drawn from a reserve that every rank
reads once, at the start: out of a whole remote set, each step would touch shards that are not those of the rank's
lanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stackgan_dist.data.batch import Batch
from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.decoded import SampleDecoder
from stackgan_dist.data.index import Index
from stackgan_dist.data.rows import RowDraws, caption_numbers
from stackgan_dist.data.shard import OpenShards
from stackgan_dist.data.text_means import embeddings_of, mean_of_captions
from stackgan_dist.randomness import Stream, permutation

RESERVE = 4096
"""Pictures in the reserve, where a set has as many."""


class PoolChoice(NamedTuple):
    """The pool of one step, P texts."""

    captions: NDArray[np.int64]
    """Their numbers among all captions of the reserve, (captions per text, P): a text is the mean of its column."""
    classes: NDArray[np.int64]
    """The number of each picture's class, (P,)."""


class PoolDraws:
    """The pools that are drawn from a reserve, as numbers: what a process needs that makes batches, and no more.

    Args:
        classes: the name of the class of each of the reserve's R pictures, or of the picture where the set knows none.
        captions: of each picture.
        seed: of the run.
        captions_per_text: a text is the mean embedding of so many captions of a picture, as a row's own is.
    """

    def __init__(self, classes: Sequence[str], captions: int, seed: int, captions_per_text: int) -> None:
        self._numbers = {name: number for number, name in enumerate(dict.fromkeys(classes))}
        self._classes = np.array([self._numbers[name] for name in classes], np.int64)
        self._captions, self._seed, self._captions_per_text = captions, seed, captions_per_text

    def choose(self, step: int, count: int) -> PoolChoice:
        """What the pool of `step` is made of, `count` texts."""
        drawn = RowDraws(self._seed, step, range(count), (Stream.POOL_PICTURE, Stream.POOL_CAPTION))
        pictures = (np.array(drawn.points(Stream.POOL_PICTURE)) * len(self._classes)).astype(np.int64)
        (captions,) = drawn.captions((Stream.POOL_CAPTION,), self._captions, self._captions_per_text)
        return PoolChoice(caption_numbers(pictures, captions, self._captions), self._classes[pictures])

    def numbers(self, classes: Sequence[str]) -> NDArray[np.int64]:
        """The numbers of classes by their names, (n,); -1 of one that the reserve lacks."""
        return np.array([self._numbers.get(name, -1) for name in classes], np.int64)

    def excluded(self, classes: Sequence[str], of_texts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """See Batch.excluded: for rows of these `classes`, by their names, and texts of those by their numbers (P,)."""
        excluded: NDArray[np.bool_] = self.numbers(classes)[:, None] == of_texts
        return excluded


class TextPool:
    """A reserve of pictures' texts, and the pools that are drawn from it.

    Args:
        texts: embeddings of all captions of each picture of the reserve, (R, captions, dim), float16.
        classes: as PoolDraws has them.
        seed: of the run.
        captions_per_text: as PoolDraws has it.
    """

    draws: PoolDraws
    """From the reserve."""

    def __init__(self, texts: NDArray[np.float16], classes: Sequence[str], seed: int, captions_per_text: int) -> None:
        self._texts = texts
        self.draws = PoolDraws(classes, texts.shape[1], seed, captions_per_text)

    @classmethod
    def read(cls, index: Index, cache: ShardCache, seed: int, captions_per_text: int) -> Self:
        """The reserve of a training set: all of its pictures, at most RESERVE.

        Of a larger set the first ones in the shards as `seed` orders them, of which only so many are read as it takes.
        Raises UserError when a shard cannot be read, or is not what the index says.
        """
        count = min(index.samples, RESERVE)
        texts = np.empty((count, index.captions_per_image, index.text_dim), np.float16)
        classes: list[str] = []
        decoder, shards = SampleDecoder(index), OpenShards(index, cache, keep=1)
        for number in permutation(len(index.shards), seed, Stream.POOL_SHARD).tolist():
            if len(classes) == count:
                break
            reader = shards[number]
            for sample in range(min(len(reader.keys), count - len(classes))):
                decoder.embeddings(reader, sample, texts[len(classes)])
                classes.append(reader.classes.names[sample])
        shards.close()
        return cls(texts, classes, seed, captions_per_text)

    def on(self, device: torch.device) -> Tensor:
        """The embeddings of the reserve, (R, captions, dim), float16, in the memory of `device`."""
        return torch.from_numpy(self._texts).to(device)


def pool_of(reserve: Tensor, captions: Tensor) -> Tensor:
    """The texts of a pool, (P, dim), float32.

    Args:
        reserve: TextPool.on, (R, captions, dim), on the device of the result.
        captions: PoolChoice.captions, (captions per text, P).
    """
    # Caption by caption: all embeddings of a large pool at once would not stay in a core's cache.
    return mean_of_captions([embeddings_of(reserve, numbers) for numbers in captions])


def with_pool(batch: Batch, reserve: Tensor | None) -> Batch:
    """`batch` with its pool in place of the numbers; both on the device of the `reserve`, if there is one."""
    if reserve is None or batch.pool_captions is None:
        return batch
    return batch._replace(pool=pool_of(reserve, batch.pool_captions), pool_captions=None)
