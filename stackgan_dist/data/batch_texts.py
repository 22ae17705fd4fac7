"""The texts of a batch: whose captions they are, and the means of their embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from stackgan_dist.data import draws
from stackgan_dist.data.draws import Stream
from stackgan_dist.data.index import Index
from stackgan_dist.data.samples import SampleDecoder
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.data.store import SampleStore


class BatchTexts:
    """Collects the embeddings for some rows of one step: their own, mismatched ones, and partners to lie between.

    Args:
        index: of the data set.
        decoder: reads embeddings.
        store: keeps them, where it has room.
        seed: of the run.
        step: of the batch.
        rows: of the global batch.
        captions_per_text: a text is the mean of so many.
        more: those of the rows that also draw a text between two.
    """

    def __init__(
        self,
        index: Index,
        decoder: SampleDecoder,
        store: SampleStore,
        seed: int,
        step: int,
        rows: Sequence[int],
        captions_per_text: int,
        more: Sequence[int],
    ) -> None:
        self._decoder, self._store = decoder, store
        self._chosen = [
            draws.captions(seed, stream, step, which, index.captions_per_image, captions_per_text)
            for stream, which in ((Stream.CAPTION, rows), (Stream.WRONG_CAPTION, rows), (Stream.PARTNER_CAPTION, more))
        ]
        self._wrong = draws.points(seed, Stream.WRONG_SAMPLE, step, rows)
        points = draws.points(seed, Stream.PARTNER_SAMPLE, step, more)
        self._with_partner = [rows.index(row) for row in more]
        self._partner = dict(zip(self._with_partner, enumerate(points), strict=True))
        # Where they are kept, their numbers; else the embeddings themselves.
        shape = () if store.texts is not None else (captions_per_text, index.text_dim)
        self._found = [
            np.empty((len(which), *shape), np.float16 if shape else np.int64) for which in (rows, rows, more)
        ]

    def read(self, n: int, reader: ShardReader, shard: int, sample: int) -> None:
        """The texts of the n-th row, whose picture is `sample` of `reader`, shard number `shard`."""
        self._read(0, n, reader, shard, sample)
        self._read(1, n, reader, shard, reader.other(sample, self._wrong[n]))
        if n in self._partner:
            place, point = self._partner[n]
            self._read(2, place, reader, shard, draws.pick(point, len(reader.keys)))

    def _read(self, kind: int, place: int, reader: ShardReader, shard: int, sample: int) -> None:
        kept = self._store.texts
        if kept is None:
            self._found[kind][place] = self._decoder.embeddings(reader, sample)[self._chosen[kind][place]]
            return
        number = self._store.number(shard, sample)
        if number not in kept:
            kept[number] = self._decoder.embeddings(reader, sample)
        self._found[kind][place] = number

    def means(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of all that was read: matching texts (n + m, dim), the last m half-way to a partner's, and mismatched ones
        (n, dim)."""
        text, wrong, partner = map(self._mean, range(3))
        between = (text[self._with_partner] + partner) / 2
        return np.concatenate([text, between]), wrong

    def _mean(self, kind: int) -> NDArray[np.float32]:
        """In float32, summed in the order in which they were chosen."""
        found, kept = self._found[kind], self._store.texts
        chosen = found if kept is None else kept.content[found[:, None], self._chosen[kind]]
        texts = torch.from_numpy(chosen).float()  # five times as fast as numpy
        total = texts[:, 0].numpy() + np.float32(0)  # which turns -0 into 0, as numpy.mean does
        for caption in range(1, texts.shape[1]):
            total += texts[:, caption].numpy()
        total /= np.float32(texts.shape[1])
        return total
