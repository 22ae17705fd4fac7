"""The pictures and the texts of a batch, out of shards or out of memory.

Pictures are cropped and mirrored; a text is a mean of embeddings, of the row's own captions or of other pictures'.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from stackgan_dist.data.decoded import SampleDecoder, SampleStore
from stackgan_dist.data.index import Index
from stackgan_dist.data.rows import RowDraws
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.randomness import Stream, pick

_BLOCK_BYTES = 2**20
"""Of pictures that are mirrored at once: in a core's cache, and many enough for a call's own time not to count."""


class BatchPictures:
    """Collects the pictures of some rows of one step.

    Reading and decoding are apart: reading goes by shards, and a decoder that is called again and again, with nothing
    between, finds its code and tables in the core's cache.

    Args:
        decoder: of the data set.
        store: keeps what is decoded, where it has room.
        size: of the crops, in pixels.
        crops: left and top of each row's crop, (n, 2).
        flips: whether each row is mirrored, (n,).
        numbers: of the rows' samples in the store, (n,).
    """

    def __init__(
        self,
        decoder: SampleDecoder,
        store: SampleStore,
        size: int,
        crops: NDArray[np.int64],
        flips: NDArray[np.bool_],
        numbers: NDArray[np.int64],
    ) -> None:
        self._decoder, self._kept = decoder, store.pictures
        self._size, self._crops, self._flips = size, crops, flips
        self._numbers, self._number = numbers, numbers.tolist()
        self._encoded: list[tuple[int, bytes, ShardReader, int]] = []

    def read(self, n: int, reader: ShardReader, sample: int) -> None:
        """The picture of the n-th row is `sample` of `reader`."""
        if self._kept is None or self._number[n] not in self._kept:
            self._encoded.append((n, reader.jpeg(sample), reader, sample))

    def seen(self) -> NDArray[np.uint8]:
        """What the rows see of their pictures, (n, 3, size, size); UserError when one is damaged."""
        if self._kept is None:
            return self._decoded()
        for n, encoded, reader, sample in self._encoded:
            self._kept[self._number[n]] = self._decoder.picture(encoded, reader, sample).transpose(2, 0, 1)
        windows = sliding_window_view(self._kept.content, (self._size, self._size), axis=(2, 3))
        images = windows[self._numbers, :, self._crops[:, 1], self._crops[:, 0]]
        rows = max(1, _BLOCK_BYTES // images[0].nbytes)
        for begin in range(0, len(images), rows):
            block, flips = images[begin : begin + rows], self._flips[begin : begin + rows]
            block[flips] = torch.from_numpy(block[flips]).flip(3).numpy()  # five times as fast as numpy's [::-1]
        return images

    def _decoded(self) -> NDArray[np.uint8]:
        size, crops, flips = self._size, self._crops.tolist(), self._flips.tolist()
        images = np.empty((len(crops), 3, size, size), np.uint8)
        for n, encoded, reader, sample in self._encoded:
            left, top = crops[n]
            seen = self._decoder.picture(encoded, reader, sample)[top : top + size, left : left + size]
            images[n] = (seen[:, ::-1] if flips[n] else seen).transpose(2, 0, 1)
        return images


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
        """Read the texts of the n-th row, whose picture is `sample` of `reader`.

        `first` is the number of that shard's first sample in the whole set.
        """
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
        """The matching texts (n + m, dim) of all that was read, and the mismatched ones (n, dim), in float32.

        The last m matching texts are half-way to a partner's. Captions are summed in the order of their choice.
        """
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
