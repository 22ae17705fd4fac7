"""Who this process is among its peers, as its launcher says through the environment; loads no torch."""

from __future__ import annotations

import functools
import os
import sys
from typing import NamedTuple


class Environment(NamedTuple):
    """What a launcher passes to a process."""

    rank: int
    local_rank: int
    world_size: int


def ranks_from_environment() -> Environment:
    """As torchrun or the deepspeed launcher set them, or (0, 0, 1) for a process that neither has started.

    Pods and notebooks often have RANK and WORLD_SIZE of something else. They are believed only beside LOCAL_RANK and
    MASTER_ADDR, which launchers set as well; otherwise a line says that they are not.
    """
    rank, world_size = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if "LOCAL_RANK" in os.environ and "MASTER_ADDR" in os.environ:
        return Environment(int(rank or 0), int(os.environ["LOCAL_RANK"]), int(world_size or 1))
    if rank not in (None, "0") or world_size not in (None, "1"):
        _note_missing_launcher(rank, world_size)
    return Environment(0, 0, 1)


def only_gloo() -> bool:
    """Whether STACKGAN_BACKEND=gloo asks for gloo on CUDA, too, where it lets several ranks share a GPU.

    It is slow there: for tests of several ranks on a machine with one GPU.
    """
    return os.environ.get("STACKGAN_BACKEND") == "gloo"


def is_main_rank() -> bool:
    """Whether this is rank 0, which alone prints what is the same on every rank."""
    return ranks_from_environment().rank == 0


@functools.cache
def _note_missing_launcher(rank: str | None, world_size: str | None) -> None:
    print(
        f"note: RANK is {rank} and WORLD_SIZE {world_size} here, but no launcher has set LOCAL_RANK and MASTER_ADDR: "
        "this process works alone. Start several by torchrun, launch/torchrun.sh or stackgan --ranks",
        file=sys.stderr,
        flush=True,
    )
