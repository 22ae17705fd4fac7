"""A sample's picture and texts, out of an open shard, held to what the index promises."""

from __future__ import annotations

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
        # Reused: fresh memory of this size comes in pages that the system has to clear, for a tenth of the time.
        self._buffer = np.empty((self._side, self._side, 3), np.uint8)

    def picture(self, reader: ShardReader, sample: int) -> NDArray[np.uint8]:
        """The stored picture, (side, side, 3); UserError when it is damaged or of another size than promised."""
        encoded, side = reader.jpeg(sample), self._side
        try:
            try:
                picture = simplejpeg.decode_jpeg(encoded, colorspace="RGB", buffer=self._buffer)
            except ValueError:  # damaged, or larger than the buffer
                picture = simplejpeg.decode_jpeg(encoded, colorspace="RGB")
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

    def embeddings(self, reader: ShardReader, sample: int) -> NDArray[np.float16]:
        """Of all captions, (captions, dim); UserError when they are not of the promised shape."""
        embeddings = reader.embeddings(sample)
        if embeddings.shape != self._texts:
            raise UserError(
                f"{reader.name}: the embeddings of {reader.keys[sample]} are {embeddings.shape}, its index says "
                f"{self._texts}; pack the set again"
            )
        return embeddings
