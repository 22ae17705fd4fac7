"""Batch normalisation over the ranks of several CUDA devices, without a wait of the host.

torch's own SyncBatchNorm leaves out ranks without rows by a mask, whose size the host has to read: three waits for
the device in every forward pass, some hundred in a step. No rank of ours is without rows (Config.validate), so the
same kernels do without. What ranks exchange goes through a process group of its own, where it does not queue behind
the gradients, and can be captured in a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from stackgan_dist.distributed.gather import DeviceGather
from stackgan_dist.distributed.joint_batchnorm import JointBatchNorm, format_of


class DeviceBatchNorm(JointBatchNorm):
    """JointBatchNorm of ranks on CUDA devices."""

    def __init__(self, plain: _BatchNorm, gather: DeviceGather) -> None:
        super().__init__(plain)
        self._gather = gather

    def _normalise(self, input: Tensor) -> Tensor:
        normalise: Callable[..., Tensor] = _Normalise.apply
        return normalise(
            input, self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps, self._gather
        )


class _Normalise(torch.autograd.Function):
    """torch.nn.modules._functions.SyncBatchNorm for ranks that all have rows."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        running_mean: Tensor,
        running_var: Tensor,
        momentum: float,
        eps: float,
        gather: DeviceGather,
    ) -> Tensor:
        x = x.contiguous(memory_format=format_of(x))
        channels = x.shape[1]
        mean, inverse_std = torch.batch_norm_stats(x, eps)
        count = torch.full((1,), x.numel() // channels, dtype=mean.dtype, device=mean.device)
        of_ranks = gather(torch.cat([mean, inverse_std, count]))
        means, inverse_stds, counts = of_ranks.split([channels, channels, 1], dim=1)
        counts = counts.flatten().to(running_mean.dtype)
        mean, inverse_std = torch.batch_norm_gather_stats_with_counts(
            x, means, inverse_stds, running_mean, running_var, momentum, eps, counts
        )
        ctx.save_for_backward(x, weight, mean, inverse_std, counts.to(torch.int32))
        ctx.gather = gather
        normalised: Tensor = torch.batch_norm_elemt(x, weight, bias, mean, inverse_std, eps)
        return normalised

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse_std, counts = ctx.saved_tensors
        grad = grad.contiguous(memory_format=format_of(grad))
        for_x, for_weight, for_bias = ctx.needs_input_grad[:3]
        # The gradients of weight and bias are of this rank's rows: the engine averages them like any other.
        sum_grad, sum_grad_centred, weight_grad, bias_grad = torch.batch_norm_backward_reduce(
            grad, x, mean, inverse_std, weight, for_x, for_weight, for_bias
        )
        x_grad = None
        if for_x:
            of_all = ctx.gather.add_up(torch.cat([sum_grad, sum_grad_centred]))
            sum_grad, sum_grad_centred = of_all.chunk(2)
            x_grad = torch.batch_norm_backward_elemt(
                grad, x, mean, inverse_std, weight.to(mean.dtype), sum_grad, sum_grad_centred, counts
            )
        return x_grad, weight_grad, bias_grad, None, None, None, None, None
