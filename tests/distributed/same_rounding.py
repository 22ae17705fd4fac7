"""Float32 in which an element is rounded in the same way wherever it lies.

Engines lay out gradients and Adam's state differently, and in two places that decides on the last bit: gloo adds what
three or more ranks have in an order that depends on an element's place in its buffer, and torch's fused Adam computes
the last elements of a tensor, which fill no vector register, by other instructions. Sooner or later such a bit puts an
activation on the other side of zero, after which two runs are different runs. Here sums have the order of ranks and
Adam is made of single operations, so that all that may differ is the engine. Two ranks' sums have one order only.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stackgan_dist.engines import ddp


@contextmanager
def same_rounding(*, divided_first: bool = True) -> Iterator[None]:
    """Train under DDP or DeepSpeed in here.

    `divided_first` tells DDP when to divide by the number of ranks, for that rounds, too: before the sum, as ZeRO 1
    and 2 do, or after it, as ZeRO 0 does.
    """

    # DDP reads the annotations, hence no `from __future__ import annotations` here.
    def average(_: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        gradients, ranks = bucket.buffer(), dist.get_world_size()
        if divided_first:
            gradients.div_(ranks)
        dist.all_reduce(gradients)
        if not divided_first:
            gradients.mul_(1 / ranks)
        averaged: torch.futures.Future[Tensor] = torch.futures.Future()
        averaged.set_result(gradients)
        return averaged

    def build(module: nn.Module, **options: Any) -> DistributedDataParallel:
        network = DistributedDataParallel(module, **options)
        network.register_comm_hook(None, average)
        return network

    with (
        patch.object(ddp, "DistributedDataParallel", build),
        patch.object(dist, "all_reduce", _in_rank_order(dist.all_reduce)),
        patch.object(dist, "reduce", _in_rank_order(dist.reduce)),
        same_adam(),
    ):
        yield


@contextmanager
def same_adam() -> Iterator[None]:
    """Adam alone: all that two ranks need."""
    with patch.object(torch.optim, "Adam", _Adam):
        yield


def _in_rank_order(collective: Callable[..., Any]) -> Callable[..., Any]:
    """`collective` (all_reduce or reduce), which leaves its sum on all ranks."""

    def ordered(tensor: Tensor, *place: Any, op: Any = dist.ReduceOp.SUM, group: Any = None, **options: Any) -> Any:
        if op != dist.ReduceOp.SUM or not tensor.is_floating_point():
            return collective(tensor, *place, op=op, group=group, **options)
        assert not options.get("async_op"), "an engine sums in the background"
        parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, tensor.contiguous(), group=group)
        tensor.copy_(functools.reduce(torch.add, parts))
        return None

    return ordered


class _Adam(torch.optim.Adam):
    """torch's, but for its rounding."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            (beta1, beta2), rate, epsilon = group["betas"], group["lr"], group["eps"]
            for parameter in group["params"]:
                state, gradient = self.state[parameter], parameter.grad
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32)
                    state["exp_avg"], state["exp_avg_sq"] = (torch.zeros_like(parameter) for _ in range(2))
                state["step"] += 1
                number = state["step"].item()
                # No operation of two kinds at once (lerp, addcmul): those are where vectors and their tails differ.
                state["exp_avg"].mul_(beta1).add_(gradient * (1 - beta1))
                state["exp_avg_sq"].mul_(beta2).add_(gradient * gradient * (1 - beta2))
                deviation = (state["exp_avg_sq"] / (1 - beta2**number)).sqrt_().add_(epsilon)
                parameter.sub_(state["exp_avg"] / deviation * (rate / (1 - beta1**number)))
