"""The DDP engine: torch's DistributedDataParallel, Adam, and a loss scaler where fp16 needs one."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.distributed.sync_batchnorm import synchronise_batchnorm
from stackgan_dist.engines.moments import load_adam, with_plain_rate

# Batch norm's statistics are global already; sending them again would break two forward passes. torch renamed the
# switch in 2.13.
_NO_BUFFER_BROADCAST: dict[str, Any] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}
)


BUCKETS = 4
"""Per network: the first ones travel while the backward pass computes the rest. More would each be too small to use the
network well; of torch's 25 MB the discriminator of Stage-I would have a single one, with nothing to overlap."""


class DDPEngine:
    """Trains `module` on all ranks.

    Args:
        module: the network on its device, with its initial weights (rank 0's count).
        ranks: who takes part.
        betas: Adam's.
        scale_loss: scale the loss against fp16's underflow.
    """

    def __init__(self, module: nn.Module, ranks: Ranks, betas: tuple[float, float], *, scale_loss: bool) -> None:
        self.module = module = synchronise_batchnorm(module, ranks.gather)
        self._forward: nn.Module = module
        if ranks.distributed:
            _keep_strides(module)
            self._forward = DistributedDataParallel(
                module,
                gradient_as_bucket_view=True,
                bucket_cap_mb=_bucket_mb(module),
                **_NO_BUFFER_BROADCAST,
            )
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        capturable = ranks.device.type == "cuda"  # also where nothing is captured: the same kernels, the same bits
        self._optimizer = torch.optim.Adam(self._parameters, betas=betas, fused=True, capturable=capturable)
        self._scaler = torch.amp.GradScaler(ranks.device.type, enabled=scale_loss)

    rehearses = True
    """See Engine."""

    def __call__(self, *inputs: Any) -> Any:
        """See Engine."""
        return self._forward(*inputs)

    def update(self, loss: Tensor, learning_rate: float | Tensor) -> Tensor:
        """See Engine."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return norm

    def state_dict(self) -> dict[str, Any]:
        """See Engine."""
        return {
            "network": self.module.state_dict(),
            "optimizer": with_plain_rate(self._optimizer.state_dict()),
            "scaler": self._scaler.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See Engine."""
        self.module.load_state_dict(state["network"])
        load_adam(self._optimizer, self._parameters, state["optimizer"])
        if state["scaler"]:  # empty when the run was not in fp16 before
            self._scaler.load_state_dict(state["scaler"])


def _keep_strides(module: nn.Module) -> None:
    """Give the gradients of 1x1 kernels the strides of their weights.

    A convolution of pictures that lie channels last writes (128, 1, 128, 128) where the weight (32, 128, 1, 1) has
    (128, 1, 1, 1): the same memory, which DDP takes for another layout and warns of.
    """
    for parameter in module.parameters():
        if parameter.requires_grad and 1 in parameter.shape:
            parameter.register_hook(partial(_with_strides, shape=parameter.shape, strides=parameter.stride()))


def _with_strides(grad: Tensor, shape: torch.Size, strides: tuple[int, ...]) -> Tensor:
    same = all(ours == theirs for size, ours, theirs in zip(shape, grad.stride(), strides, strict=True) if size > 1)
    return grad.as_strided(shape, strides) if same else grad


def _bucket_mb(module: nn.Module) -> float:
    """Size of a gradient bucket: at least 1 MB, at most torch's own 25."""
    size = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    return min(25.0, max(1.0, size / BUCKETS / 2**20))
