"""Batches from the loader to the device that trains on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from stackgan_dist.data.batch import Batch, joined, taken_apart
from stackgan_dist.errors import UserError
from stackgan_dist.side_stream import hand_over


def to_device(batch: Batch, device: torch.device) -> Batch:
    """`batch` on `device`, where it lies in one piece: one copy, from memory that is pinned once."""
    if device.type == "cpu":
        return batch
    piece, spans = joined(batch, pinned=device.type == "cuda")
    return Batch(*taken_apart(piece.to(device, non_blocking=True), spans))  # type: ignore[arg-type]  # None where it was


def batches_on(device: torch.device, batches: Iterable[Batch | UserError]) -> Iterator[Batch | UserError]:
    """`batches` on `device`; errors among them as they are.

    On CUDA each is copied from its pinned memory by a stream of its own while the step before it computes.
    """
    if device.type != "cuda":
        for batch in batches:
            yield batch if isinstance(batch, UserError) else to_device(batch, device)
        return
    side = torch.cuda.Stream(device)
    ahead: Batch | UserError | None = None
    for batch in batches:
        with torch.cuda.stream(side):
            copied = batch if isinstance(batch, UserError) else to_device(batch, device)
        if ahead is not None:
            yield _ready(ahead, side)
        ahead = copied
    if ahead is not None:
        yield _ready(ahead, side)


def _ready(batch: Batch | UserError, side: torch.cuda.Stream) -> Batch | UserError:
    if isinstance(batch, Batch):
        hand_over(batch, side)
    return batch
