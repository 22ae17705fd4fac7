"""A batch of random numbers, for tests of the step that need no data set."""

from __future__ import annotations

import torch
from torch import Tensor

from stackgan_dist.data.batch import Batch
from stackgan_dist.models import ModelConfig


def random_batch(
    model: ModelConfig, rows: int, text_dim: int, seed: int = 0, *, between: int = 0, pool: int | None = None
) -> Batch:
    """`rows` rows for `model`, `between` more for the generator alone, and a pool of so many texts where it is given.

    A third of the pool's texts are excluded from the comparisons of a row.
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    all_rows = rows + between
    place = None
    if model.placement is not None:
        # Boxes and keypoints, visible ones and others.
        place = 0.1 + 0.4 * torch.rand(all_rows, *model.placement.shape, generator=random)
        if model.placement.kind == "keypoints":
            place[..., 2] = torch.randint(0, 2, place.shape[:2], generator=random)
    return Batch(
        images=torch.randint(0, 256, (rows, 3, model.image_size, model.image_size), generator=random).byte(),
        text=normal(all_rows, text_dim),
        wrong_text=normal(rows, text_dim),
        z=normal(all_rows, model.noise_dim),
        eps=normal(all_rows, model.augmentations, model.condition_dim),
        samples=torch.zeros(rows, 2, dtype=torch.int64),
        place=place,
        pool=None if pool is None else normal(pool, text_dim),
        excluded=None if pool is None else torch.rand(rows, pool, generator=random) < 0.3,
    )
