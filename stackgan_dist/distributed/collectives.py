"""Work on numbered pieces that ranks share: its progress, and sums over all of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from stackgan_dist.distributed.process_group import Ranks

_PROGRESS_EVERY_S = 5.0


class Numbered(Protocol):
    """A batch of anything that is numbered."""

    @property
    def numbers(self) -> Tensor:
        """(n,), int64."""
        ...


B = TypeVar("B", bound=Numbered)


def with_progress(batches: Iterator[B], what: str, total: int, ranks: Ranks) -> Iterator[B]:
    """`batches`, with a line on rank 0 now and then about how far the job is."""
    begin = last = time.monotonic()
    done = 0
    for batch in batches:
        yield batch
        done = min(total, done + len(batch.numbers) * ranks.world_size)
        now = time.monotonic()
        if ranks.is_main and now - last > _PROGRESS_EVERY_S:
            last = now
            speed = done / (now - begin)
            left_s = (total - done) / speed
            print(f"{what}: {done:,}/{total:,} samples, {speed:,.0f} img/s, {left_s:.0f} s left", flush=True)


def sum_over_ranks(tensor: Tensor, ranks: Ranks) -> None:
    """Add up `tensor` of all ranks, in place."""
    if ranks.distributed:
        on_device = tensor.to(ranks.device)
        dist.all_reduce(on_device)
        tensor.copy_(on_device)


def one_thread_per_rank(ranks: Ranks) -> None:
    """Keep ranks that share a CPU from fighting for its cores."""
    if ranks.distributed and ranks.device.type == "cpu":
        torch.set_num_threads(1)
