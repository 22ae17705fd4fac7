"""Tensors that travel as one piece arrive as they were, and over one connection."""

from __future__ import annotations

import io
import pickle
from multiprocessing.reduction import ForkingPickler

import torch

from stackgan_dist.data.batch import Batch, joined, taken_apart

TENSORS = [
    torch.arange(30, dtype=torch.uint8).reshape(2, 3, 5),
    torch.randn(3, 7)[:, 1:4],
    None,
    torch.zeros(0, 4),
    torch.tensor(7),
    torch.randn(5, dtype=torch.float64),
]


def test_they_arrive_as_they_were() -> None:
    piece, places = joined(TENSORS)
    for ours, theirs in zip(taken_apart(piece, places), TENSORS, strict=True):
        if theirs is None:
            assert ours is None
        else:
            assert ours is not None
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
            assert torch.equal(ours, theirs)


def test_a_batch_travels_as_one_tensor() -> None:
    batch = Batch(*(torch.full((2, 3), float(number)) for number in range(6)))
    sent = []

    class Counting(ForkingPickler):
        def reducer_override(self, value: object) -> object:
            sent.extend([value] if isinstance(value, torch.Tensor) else [])
            return NotImplemented

    Counting(io.BytesIO()).dump(batch)
    assert len(sent) == 1
    arrived = pickle.loads(pickle.dumps(batch))
    assert isinstance(arrived, Batch)
    assert arrived.place is None
    assert all(map(torch.equal, arrived[:6], batch[:6]))
