"""Who this process is among its peers, as torchrun says through the environment; loads no torch."""

from __future__ import annotations

import os
from typing import NamedTuple


class Environment(NamedTuple):
    """What torchrun tells a process."""

    rank: int
    local_rank: int
    world_size: int


def ranks_from_environment() -> Environment:
    """As torchrun set them, or (0, 0, 1) for a process that it did not start."""
    return Environment(
        int(os.environ.get("RANK", "0")), int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    )


def is_main_rank() -> bool:
    """Whether this is rank 0, which alone prints what is the same on every rank."""
    return ranks_from_environment().rank == 0
