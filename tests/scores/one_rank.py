"""A set of features as one rank has it, and as several would: all of them in one process."""

from __future__ import annotations

import torch
from torch import Tensor

from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.scores.blocks import SharedFeatures
from stackgan_dist.scores.kernel import FirstFeatures

ALONE = Ranks(0, 1, torch.device("cpu"), None)


def shared(features: Tensor, *, unit: bool = False, block: int = 7) -> SharedFeatures:
    """`features` (N, width) of the pictures 0 to N - 1."""
    first = FirstFeatures(len(features), features.shape[1])
    first.add(torch.arange(len(features)), features)
    return SharedFeatures(first, ALONE, unit=unit, block=block)
