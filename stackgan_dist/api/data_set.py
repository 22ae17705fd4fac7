"""A packed data set: its pictures with their captions, and the batches that a training sees."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stackgan_dist.config import Config, DataConfig
from stackgan_dist.data.batch import Batch, BatchShape
from stackgan_dist.data.captions import CaptionSet
from stackgan_dist.data.dataset import PackedSet, open_packed
from stackgan_dist.data.index import Index
from stackgan_dist.data.loader import StepDataset, make_loader
from stackgan_dist.data.pictures import decoded
from stackgan_dist.data.plan import rows_of_rank
from stackgan_dist.data.text_pool import with_pool
from stackgan_dist.errors import UserError
from stackgan_dist.models.config import ImageSize, ModelConfig
from stackgan_dist.ranges import check_fields


@dataclass(frozen=True)
class Example:
    """One picture of a data set."""

    picture: Image.Image
    """As it is stored, 76/64 as large as the crops that training takes of it."""
    captions: list[str]
    embeddings: NDArray[np.float32]
    """(len(captions), dim): what the set's text encoder made of the captions."""
    class_name: str
    """Its class, or its id where the source knows no classes."""


def open_dataset(url: str, *, split: str = "train", image_size: ImageSize = 64) -> DataSet:
    """A packed data set, ready to read.

    Args:
        url: the folder above SPLIT/SIZE/index.json, or a URL such as s3://bucket/cub.
        split: "train" or "test".
        image_size: the side in pixels of the pictures that a training sees: 64, 128 or 256.

    Raises UserError, with the command that packs it, when it is not there.
    """
    if image_size not in (sizes := get_args(ImageSize)):
        raise UserError(f"image_size is {image_size!r}; it must be one of {', '.join(map(str, sizes))}")
    return DataSet(open_packed(DataConfig(url=url), image_size, split), image_size)


class DataSet:
    """One split of a packed data set: `len(data)`, `data[number]`, and `data.batches(...)`.

    Args:
        packed: where it lies.
        image_size: of the crops that a training takes.
    """

    def __init__(self, packed: PackedSet, image_size: ImageSize) -> None:
        self._packed = packed
        self.image_size: ImageSize = image_size
        self._captions: CaptionSet = packed.captions()

    def __repr__(self) -> str:
        index = self.index
        return f"<{index.name}, {index.split}: {index.samples:,} pictures, {index.text_encoder}: {self._packed.url}>"

    @property
    def index(self) -> Index:
        """What its index says of it: name, classes, text encoder and its dim, captions per image, shards."""
        return self._packed.index

    def __len__(self) -> int:
        return self.index.samples

    def __getitem__(self, number: int) -> Example:
        if not -len(self) <= number < len(self):
            raise IndexError(f"{self!r} has no picture {number}")
        caption = self._captions.caption(number % len(self), 0)
        sentences, embeddings = self._captions.texts(number % len(self))
        picture = Image.fromarray(decoded(self._captions, caption))
        return Example(picture, sentences, embeddings, caption.class_name)

    def batches(
        self,
        config: Config | None = None,
        *,
        batch_size: int | None = None,
        seed: int | None = None,
        first_step: int = 0,
        steps: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
    ) -> Iterator[Batch]:
        """What a training sees, step by step: pictures cropped and mirrored at random, texts, wrong texts, noise.

        Batch t is a pure function of the configuration and t. Its fields and their shapes are those of `Batch`.

        Args:
            config: of the training, such as `load("runs/demo").config`; None takes the defaults, for this set's size.
            batch_size: rows of the global batch, in place of the configuration's.
            seed: in place of the configuration's.
            first_step: the step to begin with.
            steps: how many; None goes on to the end of the epoch that `first_step` is in.
            rank: whose rows of the global batch to yield.
            world_size: the number of ranks that share the global batch.
            workers: processes that make batches ahead; 0 makes them in this one.

        Raises UserError where the set is too small for one batch, or was opened for another size than the model's.
        """
        config = self._config(config, batch_size, seed)
        if not 0 <= rank < world_size <= config.training.batch_size:
            raise UserError(
                f"rank {rank} of {world_size} has no rows in a batch of {config.training.batch_size}; a rank is from 0 "
                "on, below the number of ranks, of which there are at most as many as rows"
            )
        plan = self._packed.plan(config.training)
        if first_step < 0 or (steps is not None and steps < 0):
            raise UserError(f"first_step is {first_step} and steps {steps}; both are from 0 on")
        if steps is None:
            steps = plan.steps_per_epoch - first_step % plan.steps_per_epoch
        pool = self._packed.text_pool(config.training)
        dataset = StepDataset(
            self.index,
            plan,
            self._packed.cache(),
            rows_of_rank(config.training.batch_size, rank, world_size),
            BatchShape.of(config),
            config.data.lookahead_steps,
            pool=pool,
        )
        made = make_loader(dataset, first_step, first_step + steps, workers)
        return _whole(made, None if pool is None else pool.on(torch.device("cpu")))

    def _config(self, config: Config | None, batch_size: int | None, seed: int | None) -> Config:
        if config is None:
            config = Config(model=ModelConfig(image_size=self.image_size))
        if config.model.image_size != self.image_size:
            raise UserError(
                f"the configuration is of {config.model.image_size} pixels, this set was opened for "
                f"{self.image_size}; open it with image_size={config.model.image_size}"
            )
        training = config.training
        training = dataclasses.replace(
            training,
            batch_size=training.batch_size if batch_size is None else batch_size,
            seed=training.seed if seed is None else seed,
        )
        config = dataclasses.replace(config, training=training)
        check_fields(config, "")  # arguments of Python are no flags
        return config


def _whole(batches: Iterable[Batch | UserError], reserve: Tensor | None) -> Iterator[Batch]:
    """With their pools of texts, out of the `reserve`; errors among them are raised."""
    for batch in batches:
        if isinstance(batch, UserError):
            raise batch
        yield with_pool(batch, reserve)
