"""Captions by picture number: the right shard, the right sentence, few open files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import webdataset

from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.captions import CaptionSet
from stackgan_dist.data.index import load_index
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.text.ngrams import NgramEncoder


@pytest.fixture
def captions(packed: Path, tmp_path: Path) -> CaptionSet:
    url = str(packed / "test" / "76")
    index = load_index(url)
    return CaptionSet(index, ShardCache(url, index, tmp_path, 10**9))


def test_pictures_are_numbered_in_the_order_of_the_shards(packed: Path, captions: CaptionSet) -> None:
    folder = packed / "test" / "76"
    tars = [str(folder / shard.name) for shard in captions.index.shards]
    theirs = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert len(captions) == len(theirs) == 38
    for picture in [*range(38), 0, 37, 20]:
        caption, sample = captions.caption(picture, picture), theirs[picture]
        assert caption.meta == json.loads(sample["json"])
        assert caption.sentence == caption.meta["captions"][picture % 10]
        np.testing.assert_array_equal(caption.embedding, np.load(io.BytesIO(sample["emb.npy"]))[picture % 10])
        assert caption.embedding.dtype == np.float32
        assert caption.jpeg == sample["jpg"]


def test_the_embedding_is_that_of_the_sentence(captions: CaptionSet) -> None:
    for number in range(10):
        caption = captions.caption(5, number)
        np.testing.assert_allclose(
            caption.embedding, NgramEncoder().encode([caption.sentence])[0], rtol=1e-3, atol=1e-4
        )


def test_few_shards_are_open_at_a_time(captions: CaptionSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captions._shards, "_keep", 2)
    opened: list[str] = []
    closed: list[str] = []
    build, close = ShardReader.__init__, ShardReader.close
    monkeypatch.setattr(
        ShardReader, "__init__", lambda self, file, name, n: (opened.append(name), build(self, file, name, n))[1]
    )
    monkeypatch.setattr(ShardReader, "close", lambda self: (closed.append(self.name), close(self))[1])
    for picture in range(38):
        captions.caption(picture, 0)
        assert len(opened) - len(closed) <= 2
    assert len(opened) == len(captions.index.shards)
