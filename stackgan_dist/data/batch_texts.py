"""The texts of a batch: whose captions they are, and the means of their embeddings."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from stackgan_dist.data.draws import Stream, pick
from stackgan_dist.data.index import Index
from stackgan_dist.data.row_draws import RowDraws
from stackgan_dist.data.samples import SampleDecoder
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.data.store import SampleStore


class BatchTexts:
    """Collects the embeddings for some rows of one step: their own, mismatched ones, and partners to lie between.

    Args:
        index: of the data set.
        decoder: reads embeddings.
        store: keeps them, where it has room.
        captions_per_text: a text is the mean of so many.
        drawn: what the n rows draw.
        with_partner: which of them, counted from 0, also draw a text between two, m in all.
        drawn_between: what these draw for it.
    """

    def __init__(
        self,
        index: Index,
        decoder: SampleDecoder,
        store: SampleStore,
        captions_per_text: int,
        drawn: RowDraws,
        with_partner: Sequence[int] = (),
        drawn_between: RowDraws | None = None,
    ) -> None:
        self._decoder, self._kept, self._with_partner = decoder, store.texts, list(with_partner)
        of_captions = index.captions_per_image, captions_per_text
        own, wrong = drawn.captions((Stream.CAPTION, Stream.WRONG_CAPTION), *of_captions)
        self._wrong = drawn.points(Stream.WRONG_SAMPLE)
        self._partner: dict[int, tuple[int, float]] = {}  # n-th row -> place of its partner's text, and its point
        if drawn_between is not None:
            own = np.concatenate([own, *drawn_between.captions((Stream.PARTNER_CAPTION,), *of_captions)])
            points = zip(itertools.count(len(wrong)), drawn_between.points(Stream.PARTNER_SAMPLE), strict=False)
            self._partner = dict(zip(with_partner, points, strict=True))
        self._chosen = np.concatenate([own, wrong])
        n, m = len(wrong), len(self._with_partner)
        self._rows, self._texts = n, n + m
        # Where they are kept, their numbers; else the embeddings themselves.
        self._numbers = [0] * (2 * n + m) if store.texts is not None else list(range(2 * n + m))
        shape = (2 * n + m, index.captions_per_image, index.text_dim)
        self._found = np.empty(shape, np.float16) if store.texts is None else store.texts.content

    def read(self, n: int, reader: ShardReader, first: int, sample: int) -> None:
        """The texts of the n-th row, whose picture is `sample` of `reader`; `first` is the number of that shard's first
        sample."""
        self._read(n, reader, first, sample)
        self._read(self._texts + n, reader, first, reader.other(sample, self._wrong[n]))
        if n in self._partner:
            place, point = self._partner[n]
            self._read(place, reader, first, pick(point, len(reader.keys)))

    def _read(self, place: int, reader: ShardReader, first: int, sample: int) -> None:
        kept = self._kept
        if kept is None:
            self._decoder.embeddings(reader, sample, self._found[place])
            return
        self._numbers[place] = number = first + sample
        if not kept.known[number] and number not in kept:
            self._decoder.embeddings(reader, sample, kept.content[number])
            kept.set(number)

    def means(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Of all that was read: matching texts (n + m, dim), the last m half-way to a partner's, and mismatched ones
        (n, dim). In float32, summed in the order in which the captions were chosen."""
        _, captions, dim = self._found.shape
        lines = np.array(self._numbers)[:, None] * captions + self._chosen
        chosen = self._found.reshape(-1, dim).take(lines.T, axis=0)  # (captions per text, 2n + m, dim)
        texts = torch.from_numpy(chosen).float().numpy()  # five times as fast as numpy
        means = texts[0] + np.float32(0)  # which turns -0 into 0, as numpy.mean does
        for more in texts[1:]:
            means += more
        means /= np.float32(len(texts))
        if self._with_partner:
            between = slice(self._rows, self._texts)
            means[between] = (means[self._with_partner] + means[between]) / 2
        return means[: self._texts], means[self._texts :]
