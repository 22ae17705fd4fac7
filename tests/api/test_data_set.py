"""A packed set from Python: its pictures, and the very batches of a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from distributed.tiny import BATCH, STEPS_PER_EPOCH, tiny_config

import stackgan_dist
from stackgan_dist import UserError
from stackgan_dist.config import Config, TrainingConfig
from stackgan_dist.data.batch import BatchShape
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.data.loader import StepDataset
from stackgan_dist.models.config import ModelConfig


def test_pictures_with_their_captions(packed: Path) -> None:
    data = stackgan_dist.open_dataset(str(packed))
    assert len(data) == 38
    assert "painted, train: 38 pictures, ngrams" in repr(data)
    example = data[0]
    assert example.picture.size == (76, 76)
    assert len(example.captions) == data.index.captions_per_image == len(example.embeddings)
    assert example.embeddings.shape[1] == data.index.text_dim
    assert example.class_name in data.index.classes
    assert data[-1].captions == data[37].captions
    assert sum(1 for _ in data) == 38
    with pytest.raises(IndexError):
        data[38]


def test_batches_are_those_of_the_training(packed: Path, tmp_path: Path) -> None:
    config = tiny_config(str(packed), tmp_path, "run")
    opened = open_packed(config.data, 64)
    rows = range(BATCH)
    of_training = StepDataset(
        opened.index, opened.plan(config.training), opened.cache(), rows, BatchShape.of(config), 1
    )
    data = stackgan_dist.open_dataset(str(packed))
    batches = list(data.batches(config))
    assert len(batches) == STEPS_PER_EPOCH
    for step, batch in enumerate(batches):
        expected = of_training[step]
        assert not isinstance(expected, UserError)
        for ours, theirs in zip(batch, expected, strict=True):
            assert torch.equal(ours, theirs) if isinstance(theirs, torch.Tensor) else ours is theirs
    parts = [next(data.batches(config, first_step=3, rank=rank, world_size=3)) for rank in range(3)]
    assert torch.equal(torch.cat([part.images for part in parts]), batches[3].images)
    assert len(list(data.batches(config, first_step=3))) == 2
    assert len(list(data.batches(config, steps=7, workers=1))) == 7  # on into the next epoch


def test_batches_of_the_contrastive_term_have_their_pool(packed: Path) -> None:
    config = Config(
        model=ModelConfig(image_size=64),
        training=TrainingConfig(batch_size=4, contrastive_weight=1.0, contrastive_pool=9),
    )
    data = stackgan_dist.open_dataset(str(packed))
    here, by_a_process = (next(data.batches(config, steps=1, workers=workers)) for workers in (0, 1))
    assert here.pool is not None
    assert here.excluded is not None
    assert here.pool_captions is None
    assert here.pool.shape == (9, here.text.shape[1])
    assert here.excluded.shape == (4, 9)
    assert torch.equal(here.pool, by_a_process.pool)  # type: ignore[arg-type]


def test_without_a_configuration_it_has_the_defaults(packed: Path) -> None:
    batch = next(stackgan_dist.open_dataset(str(packed), split="test", image_size=128).batches(batch_size=3))
    assert (batch.images.shape, batch.images.dtype) == ((3, 3, 128, 128), torch.uint8)
    assert batch.text.shape == batch.wrong_text.shape == (3, 256)
    other = next(stackgan_dist.open_dataset(str(packed), split="test", image_size=128).batches(batch_size=3, seed=1))
    assert not np.array_equal(batch.images, other.images)


def test_what_cannot_be_is_said(packed: Path, tmp_path: Path) -> None:
    data = stackgan_dist.open_dataset(str(packed))
    with pytest.raises(UserError, match=r"no shards at .*Make them:\n  python -m stackgan_dist.pack painted"):
        stackgan_dist.open_dataset(str(packed), image_size=256)
    with pytest.raises(UserError, match=r"training\.batch_size is 1"):
        data.batches(batch_size=1)
    with pytest.raises(UserError, match="rank 2 of 2 has no rows"):
        data.batches(rank=2, world_size=2)
    with pytest.raises(UserError, match="first_step is -1"):
        data.batches(batch_size=3, first_step=-1)
    with pytest.raises(UserError, match="64"):
        data.batches(batch_size=64)
    wide = stackgan_dist.open_dataset(str(packed), image_size=128)
    with pytest.raises(UserError, match="open it with image_size=64"):
        wide.batches(tiny_config(str(packed), tmp_path, "run"))
