"""Making and using at the same time: the next batch is made while the one before is used.

A thread makes them: it decodes pictures, or generates them. On CUDA it has a stream of its own, so the device generates
one batch while it classifies the other and while the host adds up what was found.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any, TypeVar

import torch

from stackgan_dist.machine import cores_of_this_rank
from stackgan_dist.side_stream import hand_over

B = TypeVar("B")


def made_ahead(batches: Iterator[B], device: torch.device) -> Iterator[B]:
    """`batches` as they are, each begun when the one before is handed over.

    One at most is ahead, so memory does not grow with their number. What goes wrong in making one is raised here, in
    its place, and no thread is left. A rank with a single core takes them in turn: there is nothing to gain.

    Args:
        batches: dataclasses, whose tensors may lie on `device`.
        device: where the rank computes.
    """
    if device.type == "cpu" and cores_of_this_rank() < 2:
        yield from batches
        return
    stream = _Stream(device) if device.type == "cuda" else None

    def begin() -> None:
        if stream is not None:  # a thread begins on the first GPU, where ranks on others would leave a context each
            torch.cuda.set_device(device)

    with ThreadPoolExecutor(1, thread_name_prefix="made-ahead", initializer=begin) as maker:
        coming = maker.submit(_make, batches, stream, None)
        used = None
        while (batch := coming.result()) is not None:
            if stream is not None:
                hand_over(vars(batch).values(), stream.making)
            coming = maker.submit(_make, batches, stream, used)
            yield batch
            used = stream.mark() if stream is not None else None


class _Stream:
    """Where batches are made on CUDA, beside the stream that is current where they are measured."""

    def __init__(self, device: torch.device) -> None:
        self._measuring = torch.cuda.current_stream(device)
        self.making = torch.cuda.Stream(device)
        self.making.wait_stream(self._measuring)  # the generator's weights may still be on their way

    def mark(self) -> torch.cuda.Event:
        """The end of what the measuring stream has been given so far."""
        end: torch.cuda.Event = self._measuring.record_event(torch.cuda.Event(blocking=True))
        return end


def _make(batches: Iterator[B], stream: _Stream | None, used: Any) -> B | None:
    """The next batch, or None at the end; on CUDA when the last but one is `used`, which bounds what is under way."""
    if used is not None:
        used.synchronize()
    with nullcontext() if stream is None else torch.cuda.stream(stream.making):
        return next(batches, None)
