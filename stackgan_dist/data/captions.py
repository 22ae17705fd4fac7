"""The captions of a packed data set, by picture number: for grids, scores and all else that generates from text."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.index import Index
from stackgan_dist.data.shard import OpenShards, ShardReader


class Caption(NamedTuple):
    """One sentence about one picture."""

    sentence: str
    embedding: NDArray[np.float32]
    """(dim,)"""
    jpeg: bytes
    """The picture it belongs to, encoded."""
    meta: dict[str, Any]
    """The whole KEY.json: class, id and what else the source knows."""

    @property
    def class_name(self) -> str:
        """The picture's class, or its id where the source knows no classes."""
        return _class_in(self.meta, self.sentence)


class CaptionSet:
    """Random access to the pictures and captions of a data set; pictures are numbered in the order of the shards.

    Args:
        index: of the data set.
        cache: its shards.
    """

    def __init__(self, index: Index, cache: ShardCache) -> None:
        self.index = index
        # Pictures come in any order, and opening a shard takes a hundred times as long as reading one of them.
        self._shards = OpenShards(index, cache, len(index.shards))

    def __len__(self) -> int:
        return self.index.samples

    def caption(self, picture: int, number: int) -> Caption:
        """Caption `number` (counted modulo the picture's captions) of picture `picture`."""
        reader, sample = self._locate(picture)
        meta = reader.meta(sample)
        embeddings = reader.embeddings(sample)
        number %= len(embeddings)
        return Caption(meta["captions"][number], embeddings[number].astype(np.float32), reader.jpeg(sample), meta)

    def class_name(self, picture: int) -> str:
        """The class of picture `picture`, as its captions have it; nothing else of it is read."""
        reader, sample = self._locate(picture)
        meta = reader.meta(sample)
        return _class_in(meta, meta["captions"][0])

    def texts(self, picture: int) -> tuple[list[str], NDArray[np.float32]]:
        """All captions of picture `picture`, and their embeddings (captions, dim)."""
        reader, sample = self._locate(picture)
        return reader.meta(sample)["captions"], reader.embeddings(sample).astype(np.float32)

    def mean_embedding(self, picture: int) -> NDArray[np.float32]:
        """The mean (dim,) of the embeddings of all captions of picture `picture`."""
        reader, sample = self._locate(picture)
        mean: NDArray[np.float32] = reader.embeddings(sample).astype(np.float32).mean(axis=0)
        return mean

    def _locate(self, picture: int) -> tuple[ShardReader, int]:
        shard, sample = self.index.locate(picture)
        return self._shards[shard], sample


def _class_in(meta: dict[str, Any], sentence: str) -> str:
    return str(meta.get("class", meta.get("id", sentence)))
