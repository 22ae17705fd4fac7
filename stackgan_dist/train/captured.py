"""A step recorded once, as one CUDA graph, and replayed: some 750 launches of kernels become one.

At batch 64 a GPU waits for the host that launches them. A graph has no host in it, so all that changes from step to
step has to lie in memory that it reads: the batch in buffers of its own, the learning rate in a tensor, weights and
optimizer state at addresses that stay (what loads them loads in place). What it cannot hold comes after the replay:
the moving average, whose decay is a number of the host, and the exchange of reports.

On a CPU the same step is called instead of replayed, with the same buffers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from stackgan_dist.config import Config
from stackgan_dist.data.batch import Batch
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.errors import UserError
from stackgan_dist.train.precision import Precision
from stackgan_dist.train.step import StepReport

_WARM_UPS = 3
"""Steps before the recording: libraries choose their kernels and make their workspaces, Adam its moments."""


def captures(config: Config, ranks: Ranks, precision: Precision) -> bool:
    """Whether a run records its step; UserError where it is told to and cannot."""
    on_cuda = ranks.device.type == "cuda"
    reasons = {
        "--engine deepspeed launches its own work": config.engine == "deepspeed",
        "fp16's loss scaler reads a flag on the host in every step": precision.scale_loss,
        "--training.compile records graphs of its own": config.training.compile,
        f"it is for a single CUDA device, and these are {ranks.world_size}": on_cuda and ranks.distributed,
    }
    against = [reason for reason, holds in reasons.items() if holds]
    if config.training.capture == "on" and against:
        raise UserError(f"--training.capture on: {against[0]}; leave it at auto, or change that")
    return not against and (config.training.capture == "on" or (config.training.capture == "auto" and on_cuda))


class CapturedStep:
    """`take`, recorded; calling it replays it on another batch.

    Args:
        take: takes a step and returns what it measured. It is called a few times here, so what it changes has to be
            put back, in place.
        blank: a batch of the shape of all that will come, on the device.
    """

    def __init__(self, take: Callable[[Batch], StepReport], blank: Batch) -> None:
        self._batch = Batch(*(None if part is None else part.clone().contiguous() for part in blank))  # type: ignore[arg-type]
        # A graph needs `take` no longer; kept, it would be a circle, which holds the graph's memory until it is found.
        self._take: Callable[[Batch], StepReport] | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        if blank.images.is_cuda:
            self._graph, self._report = _recorded(take, self._batch)
        else:
            self._take, self._report = take, take(self._batch)

    def __call__(self, batch: Batch) -> StepReport:
        """Take a step on `batch`. What was measured is written over by the next call."""
        mine, theirs = zip(*((a, b) for a, b in zip(self._batch, batch, strict=True) if a is not None), strict=True)
        torch._foreach_copy_(mine, theirs)
        if self._graph is None:
            assert self._take is not None
            return in_one_piece(self._take(self._batch))
        self._graph.replay()
        return self._report


def _recorded(take: Callable[[Batch], StepReport], batch: Batch) -> tuple[torch.cuda.CUDAGraph, StepReport]:
    device = batch.images.device
    here, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    side.wait_stream(here)
    with torch.cuda.stream(side):  # gradients are accumulated on the stream that they were first made on
        for _ in range(_WARM_UPS):
            take(batch)
    here.wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on using CUDA meanwhile: those that pin memory, or watch a process group.
    with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        report = in_one_piece(take(batch))
    return graph, report


def in_one_piece(report: StepReport) -> StepReport:
    """The same numbers in float64, next to each other, so that reading them takes no work for each."""
    present = {field.name: getattr(report, field.name) for field in dataclasses.fields(report)}
    values: dict[str, Tensor] = {name: value for name, value in present.items() if value is not None}
    piece = torch.stack([value.double() for value in values.values()])
    return StepReport(**dict(zip(values, piece.unbind(), strict=True)))
