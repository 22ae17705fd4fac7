"""The captions of a packed data set, by picture number: for grids, scores and everything else that draws from text."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.index import Index
from stackgan_dist.data.open_shards import OpenShards

_SHARDS_KEPT = 16


class Caption(NamedTuple):
    """One sentence about one picture."""

    sentence: str
    embedding: NDArray[np.float32]
    """(dim,)"""
    jpeg: bytes
    """The picture it belongs to, encoded."""
    meta: dict[str, Any]
    """The whole KEY.json: class, id and what else the source knows."""


class CaptionSet:
    """Random access to the pictures and captions of a data set; pictures are numbered in the order of the shards.

    Args:
        index: of the data set.
        cache: its shards.
    """

    def __init__(self, index: Index, cache: ShardCache) -> None:
        self.index = index
        self._shards = OpenShards(index, cache, _SHARDS_KEPT)
        self._ends = np.cumsum([shard.samples for shard in index.shards])

    def __len__(self) -> int:
        return self.index.samples

    def caption(self, picture: int, number: int) -> Caption:
        """Caption `number` (counted modulo the picture's captions) of picture `picture`."""
        shard = int(np.searchsorted(self._ends, picture, side="right"))
        sample = picture - int(self._ends[shard] - self.index.shards[shard].samples)
        reader = self._shards[shard]
        meta = reader.meta(sample)
        embeddings = reader.embeddings(sample)
        number %= len(embeddings)
        return Caption(meta["captions"][number], embeddings[number].astype(np.float32), reader.jpeg(sample), meta)
