"""Samples decoded: out of an open shard, and held to what the index promises."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from stackgan_dist.data.index import Index
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.errors import UserError


class SampleDecoder:
    """Decodes the samples of one data set. What `picture` returns is overwritten by the next call."""

    def __init__(self, index: Index) -> None:
        self._side = index.image_size
        self._texts = (index.captions_per_image, index.text_dim)
        self._header = _header(self._texts)
        # Reused: fresh memory of this size comes in pages that the system has to clear, for a tenth of the time.
        self._buffer = np.empty((self._side, self._side, 3), np.uint8)

    def picture(self, encoded: bytes, reader: ShardReader, sample: int) -> NDArray[np.uint8]:
        """The stored picture, (side, side, 3), out of `encoded`, the JPEG of `sample` of `reader`.

        Raises UserError when it is damaged or of another size than promised.
        """
        side = self._side
        try:
            picture = self.pixels(encoded)
        except ValueError as error:
            raise UserError(
                f"{reader.name}: the picture of {reader.keys[sample]} cannot be decoded: {error}"
            ) from error
        if picture.shape != (side, side, 3):
            raise UserError(
                f"{reader.name}: the picture of {reader.keys[sample]} is {picture.shape[1]}x{picture.shape[0]}, its "
                f"index says {side}x{side}; pack the set again"
            )
        return picture

    def pixels(self, encoded: bytes) -> NDArray[np.uint8]:
        """A JPEG decoded, (height, width, 3); ValueError when it is damaged."""
        try:
            picture: NDArray[np.uint8] = simplejpeg.decode_jpeg(encoded, colorspace="RGB", buffer=self._buffer)
        except ValueError:  # damaged, or larger than the buffer
            picture = simplejpeg.decode_jpeg(encoded, colorspace="RGB")
        return picture

    def embeddings(self, reader: ShardReader, sample: int, out: NDArray[np.float16]) -> None:
        """Of all captions into `out` (captions, dim); UserError when they are not of the promised shape."""
        if reader.read_behind(sample, "emb.npy", self._header, out):
            return
        embeddings = reader.embeddings(sample)
        if embeddings.shape != self._texts:
            raise UserError(
                f"{reader.name}: the embeddings of {reader.keys[sample]} are {embeddings.shape}, its index says "
                f"{self._texts}; pack the set again"
            )
        out[...] = embeddings


def _header(shape: tuple[int, ...]) -> bytes:
    """What a .npy file of such float16 numbers begins with."""
    file, numbers = io.BytesIO(), np.empty(shape, np.float16)
    np.save(file, numbers)
    return file.getvalue()[: -numbers.nbytes]
