"""The pool of texts: true to the packed set, the same for all rows and ranks, a pure function of (seed, step)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from stackgan_dist.config import Config, TrainingConfig
from stackgan_dist.data import text_pool
from stackgan_dist.data.batch import Batch, BatchShape, blank_batch
from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.index import Index, load_index
from stackgan_dist.data.loader import StepDataset, make_loader
from stackgan_dist.data.plan import Plan
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.data.text_pool import TextPool, pool_of, with_pool
from stackgan_dist.errors import UserError
from stackgan_dist.randomness import Stream, hash64

SEED, CAPTIONS, BATCH, POOL = 3, 4, 7, 512
SHAPE = BatchShape(64, CAPTIONS, noise_dim=5, stages=1, condition_dim=4, pool=POOL)


@pytest.fixture
def index(packed: Path) -> Index:
    return load_index(str(packed / "train" / "76"))


@pytest.fixture
def cache(packed: Path, index: Index, tmp_path: Path) -> ShardCache:
    return ShardCache(str(packed / "train" / "76"), index, tmp_path, 10**9)


def _read(index: Index, cache: ShardCache, seed: int = SEED) -> TextPool:
    return TextPool.read(index, cache, seed, CAPTIONS)


def _drawn(pool: TextPool, step: int, count: int) -> tuple[torch.Tensor, np.ndarray]:
    """The texts of the pool of `step`, (count, dim), and the number of each one's class, (count,)."""
    chosen = pool.draws.choose(step, count)
    return pool_of(pool.on(torch.device("cpu")), torch.from_numpy(chosen.captions)), chosen.classes


def _pictures(index: Index, cache: ShardCache) -> list[tuple[str, np.ndarray]]:
    """Class and embeddings of every picture of the set, shard by shard in the order of POOL_SHARD."""
    hashes = [int(hash64(SEED, Stream.POOL_SHARD, number)) for number in range(len(index.shards))]
    found = []
    for number in sorted(range(len(hashes)), key=hashes.__getitem__):
        shard = index.shards[number]
        reader = ShardReader(cache.open(number), shard.name, shard.samples)
        found += [(reader.meta(n)["class"], reader.embeddings(n).astype(np.float64)) for n in range(shard.samples)]
        reader.close()
    return found


def test_a_text_is_the_mean_of_distinct_captions_of_a_picture_of_its_class(index: Index, cache: ShardCache) -> None:
    pool, pictures = _read(index, cache), _pictures(index, cache)
    drawn, classes = _drawn(pool, 5, POOL)
    texts = drawn.numpy()
    assert texts.shape == (POOL, index.text_dim)
    assert texts.dtype == np.float32
    chosen = set()
    for number, (text, of_class) in enumerate(zip(texts, classes, strict=True)):
        point = (int(hash64(SEED, Stream.POOL_PICTURE, 5, number)) >> 11) / 2**53
        picture = int(point * len(pictures))
        hashes = [int(hash64(SEED, Stream.POOL_CAPTION, 5, number, caption)) for caption in range(10)]
        captions = sorted(range(10), key=hashes.__getitem__)[:CAPTIONS]
        name, embeddings = pictures[picture]
        np.testing.assert_allclose(text, embeddings[captions].mean(0), rtol=1e-5, atol=1e-6)
        assert pool.draws.numbers([name]).tolist() == [of_class]
        chosen.add(picture)
    assert len(chosen) == len(pictures)  # 512 texts of 38 pictures


def test_it_is_a_function_of_seed_and_step(index: Index, cache: ShardCache) -> None:
    first, again = _read(index, cache), _read(index, cache)
    _drawn(again, 8, POOL)  # what was drawn before does not matter
    for ours, theirs in zip(_drawn(first, 2, POOL), _drawn(again, 2, POOL), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    texts = [_drawn(pool, step, 20)[0] for pool, step in ((first, 2), (first, 3), (_read(index, cache, SEED + 1), 2))]
    assert not any(np.array_equal(texts[n], texts[n - 1]) for n in range(3))


def _dataset(index: Index, cache: ShardCache, rows: Sequence[int]) -> StepDataset:
    plan = Plan([shard.samples for shard in index.shards], SEED, BATCH)
    return StepDataset(index, plan, cache, rows, SHAPE, lookahead=4, pool=_read(index, cache))


def _batch(dataset: StepDataset, step: int) -> Batch:
    batch = dataset[step]
    assert isinstance(batch, Batch), batch
    return batch


def _whole(batch: Batch | UserError, index: Index, cache: ShardCache) -> Batch:
    """With its pool of texts in place of their numbers."""
    assert isinstance(batch, Batch), batch
    assert batch.pool is None
    return with_pool(batch, _read(index, cache).on(torch.device("cpu")))


def test_all_ranks_and_workers_have_the_same_pool(index: Index, cache: ShardCache) -> None:
    whole = _whole(_dataset(index, cache, range(BATCH))[4], index, cache)
    assert whole.pool is not None
    assert whole.excluded is not None
    for rows in (range(0, 2), range(2, 4), range(4, 7)):
        part = _whole(_dataset(index, cache, rows)[4], index, cache)
        assert part.pool is not None
        assert part.excluded is not None
        assert torch.equal(part.pool, whole.pool)
        assert torch.equal(part.excluded, whole.excluded[rows.start : rows.stop])
    (sent,) = make_loader(_dataset(index, cache, range(BATCH)), 4, 5, 1)
    by_worker = _whole(sent, index, cache)
    assert torch.equal(by_worker.pool, whole.pool)  # type: ignore[arg-type]
    assert torch.equal(by_worker.excluded, whole.excluded)  # type: ignore[arg-type]
    assert by_worker.excluded.dtype == torch.bool  # type: ignore[union-attr]


def test_a_row_is_not_compared_with_texts_of_its_class(index: Index, cache: ShardCache) -> None:
    batch = _batch(_dataset(index, cache, range(BATCH)), 1)
    pictures, texts = _pictures(index, cache), _drawn(_read(index, cache), 1, POOL)[0].numpy()
    of_texts = []
    for text in texts:  # by what they are, not by what the pool says of them
        distances = [np.abs(embeddings.mean(0) - text).sum() for _, embeddings in pictures]
        of_texts.append(pictures[int(np.argmin(distances))][0])
    for row, (shard, sample) in enumerate(batch.samples.tolist()):
        reader = ShardReader(cache.open(shard), "shard", index.shards[shard].samples)
        own = reader.meta(sample)["class"]
        assert batch.excluded is not None
        agreement = np.mean([name == own for name in of_texts] == batch.excluded[row].numpy())
        assert agreement > 0.95  # a mean of four captions may be nearest to that of another class
        assert 0 < batch.excluded[row].sum() < POOL


def test_without_classes_it_is_not_compared_with_its_own_picture() -> None:
    """There the name of a picture stands for its class."""
    texts = np.arange(3, dtype=np.float16).reshape(3, 1, 1)
    pool = TextPool(texts, ["a", "b", "c"], SEED, 1)
    drawn, classes = _drawn(pool, 0, 50)
    excluded = pool.draws.excluded(["b", "not in the reserve"], classes)
    np.testing.assert_array_equal(excluded[0], drawn[:, 0] == 1)
    assert excluded[0].any()
    assert not excluded[1].any()


def test_of_a_large_set_only_some_shards_are_read(
    index: Index, cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first ones in an order of the seed's own, until there are enough pictures."""
    monkeypatch.setattr(text_pool, "RESERVE", 10)
    opened: list[int] = []
    whole = ShardCache.open
    monkeypatch.setattr(ShardCache, "open", lambda self, number: (opened.append(number), whole(self, number))[1])
    pool = _read(index, cache)
    assert len(opened) == 2  # of five, of eight pictures each
    monkeypatch.undo()
    pictures = _pictures(index, cache)[:10]
    _, classes = _drawn(pool, 0, POOL)
    assert set(classes.tolist()) == set(pool.draws.numbers([name for name, _ in pictures]).tolist())
    assert pool.draws.numbers(["none of them"]).tolist() == [-1]


def test_a_batch_without_the_term_has_none(index: Index, cache: ShardCache) -> None:
    plan = Plan([shard.samples for shard in index.shards], SEED, BATCH)
    shape = dataclasses.replace(SHAPE, pool=0)
    batch = _batch(StepDataset(index, plan, cache, range(2), shape, lookahead=4), 0)
    assert batch.pool_captions is None
    assert batch.excluded is None
    assert with_pool(batch, None) is batch
    assert BatchShape.of(Config()).pool == 0
    assert BatchShape.of(Config(training=TrainingConfig(contrastive_weight=0.1))).pool == 512
    assert BatchShape.of(Config(training=TrainingConfig(contrastive_weight=0.1, contrastive_pool=7))).pool == 7


def test_the_rehearsal_s_batch_has_the_shape_of_any_other(index: Index, cache: ShardCache) -> None:
    real = _whole(_dataset(index, cache, range(BATCH))[0], index, cache)
    blank = blank_batch(range(BATCH), SHAPE, index.text_dim)
    shapes = [{k: (v.shape, v.dtype) for k, v in one._asdict().items() if v is not None} for one in (real, blank)]
    assert shapes[0] == shapes[1]
