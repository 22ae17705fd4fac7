"""Work on numbered pieces that ranks share: its progress, and sums over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from stackgan_dist.distributed.process_group import Ranks, wait_for_device
from stackgan_dist.progress import ProgressLine


class Numbered(Protocol):
    """A batch of anything that is numbered."""

    @property
    def numbers(self) -> Tensor:
        """(n,), int64."""
        ...


B = TypeVar("B", bound=Numbered)


def with_progress(batches: Iterator[B], what: str, total: int, ranks: Ranks) -> Iterator[B]:
    """`batches`, with a line on rank 0 now and then about how far the job is."""
    line = ProgressLine(what, total, "pictures")
    done = 0
    for batch in batches:
        yield batch
        done = min(total, done + len(batch.numbers) * ranks.world_size)
        if ranks.is_main:
            line.show(done)


def sum_over_ranks(tensor: Tensor, ranks: Ranks) -> None:
    """Add up `tensor` of all ranks, in place."""
    if ranks.distributed:
        on_device = tensor.to(ranks.device)
        dist.all_reduce(on_device)
        wait_for_device(ranks)
        tensor.copy_(on_device)


def one_thread_per_rank(ranks: Ranks) -> None:
    """Keep ranks that share a CPU from fighting for its cores."""
    if ranks.distributed and ranks.device.type == "cpu":
        torch.set_num_threads(1)
