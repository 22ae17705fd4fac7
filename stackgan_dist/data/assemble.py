"""The pictures and the texts of a batch, out of shards or out of memory.

Pictures are cropped and mirrored; a text is a mean of embeddings, of the row's own captions or of other pictures'.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from stackgan_dist.data.decoded import SampleDecoder
from stackgan_dist.data.index import Index
from stackgan_dist.data.kept import SampleStore
from stackgan_dist.data.planned_rows import PlannedRows
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.data.text_means import mean_texts

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
    """Collects the embeddings for the rows of one step: their own, mismatched ones, and partners to lie between.

    Args:
        index: of the data set.
        decoder: reads embeddings.
        store: keeps them, where it has room.
        planned: the rows.
    """

    def __init__(self, index: Index, decoder: SampleDecoder, store: SampleStore, planned: PlannedRows) -> None:
        self._decoder, self._kept, self._planned = decoder, store.texts, planned
        texts = len(planned.captions)
        # Where they are kept, their numbers; else the embeddings themselves.
        self._numbers = [0] * texts if store.texts is not None else list(range(texts))
        shape = (texts, index.captions_per_image, index.text_dim)
        self._found = np.empty(shape, np.float16) if store.texts is None else store.texts.content

    def read(self, n: int, reader: ShardReader, first: int) -> None:
        """Read the texts of the n-th row, whose picture is in `reader`.

        `first` is the number of that shard's first sample in the whole set.
        """
        for place, sample in self._planned.texts_of(n, reader.classes):
            self._read(place, reader, first, sample)

    def _read(self, place: int, reader: ShardReader, first: int, sample: int) -> None:
        kept = self._kept
        if kept is None:
            self._decoder.embeddings(reader, sample, self._found[place])
            return
        self._numbers[place] = number = first + sample
        if not kept.known[number] and number not in kept:
            self._decoder.embeddings(reader, sample, kept.content[number])
            kept.set(number)

    def means(self) -> tuple[Tensor, Tensor]:
        """The matching texts (n + m, dim) of all that was read, and the mismatched ones (n, dim), in float32.

        The last m matching texts are half-way to a partner's.
        """
        _, captions, dim = self._found.shape
        lines = np.array(self._numbers)[:, None] * captions + self._planned.captions
        chosen = self._found.reshape(-1, dim).take(lines.T, axis=0)  # (captions per text, 2n + m, dim)
        return mean_texts(torch.from_numpy(chosen), self._planned.texts, self._planned.with_partner)
