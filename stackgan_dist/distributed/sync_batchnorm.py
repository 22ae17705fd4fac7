"""Batch normalisation over the global batch, on CPUs; device_batchnorm.py is that of CUDA devices.

torch has none for CPU tensors. Forward, backward and running statistics equal those of one process on the whole batch,
for uneven shares of it too. A single rank uses it as well, so that one rank computes what many do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from stackgan_dist.distributed.device_batchnorm import DeviceBatchNorm
from stackgan_dist.distributed.gather import DeviceGather, Gather
from stackgan_dist.distributed.joint_batchnorm import JointBatchNorm, format_of


def synchronise_batchnorm(module: nn.Module, gather: Gather | None) -> nn.Module:
    """Replace every batch norm in `module` by one over all ranks; the state dict keeps its names.

    `gather` is how ranks exchange their statistics; None, of a single CUDA device, leaves all as it is.
    """
    if gather is None:
        return module
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            joint: JointBatchNorm = (
                DeviceBatchNorm(child, gather) if isinstance(gather, DeviceGather) else _SyncBatchNormCPU(child, gather)
            )
            setattr(module, name, joint)
        else:
            synchronise_batchnorm(child, gather)
    return module


class _SyncBatchNormCPU(JointBatchNorm):
    """JointBatchNorm of ranks on CPUs."""

    def __init__(self, plain: _BatchNorm, gather: Gather) -> None:
        super().__init__(plain)
        self._gather = gather

    def _normalise(self, input: Tensor) -> Tensor:
        # Half precision would lose the statistics; the result goes back to the input's type, as torch's own does.
        wide = input if input.dtype == torch.float64 else input.float()
        normalise: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] = _Normalise.apply
        output, mean, variance, count = normalise(wide, self.weight, self.bias, self.eps, self._gather)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.momentum is not None
            unbiased = variance * (count / (count - 1))
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        return output.to(input.dtype)


class _Normalise(torch.autograd.Function):
    """y = (x - mean) * weight / sqrt(variance + eps) + bias with mean and variance over the rows of all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, gather: Gather) -> tuple[Tensor, ...]:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        # One collective: each rank's count, mean and sum of squares about its own mean, combined as Chan, Golub and
        # LeVeque do (1979). E[x^2] - E[x]^2 would cancel; summing gathered parts has one order on every rank.
        local_count = x.numel() // x.shape[1]
        local_mean = x.sum(axes) / max(local_count, 1)
        centre = _along_channels(local_mean, x)
        local_squares = reduce(torch.add, ((part - centre).square_().sum(axes) for part in _parts(x)))
        of_ranks = gather(torch.cat([x.new_tensor([local_count]), local_mean, local_squares]))
        counts, (means, squares) = of_ranks[:, :1], of_ranks[:, 1:].chunk(2, dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (squares + counts * (means - mean).square()).sum(0) / count
        ctx.gather, ctx.eps = gather, eps
        ctx.save_for_backward(x, weight, mean, variance, count)
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        x, weight, mean, variance, count = ctx.saved_tensors
        # The kernel is ten times slower where input and gradient lie in memory differently.
        grad = grad.contiguous(memory_format=format_of(x))
        # These sums are over this rank's rows, as the gradients of weight and bias have to be: the engine averages them
        # like any other.
        _, weight_grad, bias_grad = torch.ops.aten.native_batch_norm_backward(
            grad, x, weight, mean, variance, None, None, False, ctx.eps, [False, True, True]
        )
        # As if the statistics were constants, and what they owe to x, by the sums over all rows.
        mean_bias_grad, mean_weight_grad = (ctx.gather(torch.cat([bias_grad, weight_grad])).sum(0) / count).chunk(2)
        inverse_std = torch.rsqrt(variance + ctx.eps)
        direct = weight * inverse_std
        slope = -direct * inverse_std * mean_weight_grad
        offset = -direct * mean_bias_grad
        centre, direct, slope, offset = (_along_channels(vector, x) for vector in (mean, direct, slope, offset))
        x_grad = torch.empty_like(x)
        for x_part, grad_part, x_grad_part in zip(_parts(x), _parts(grad), _parts(x_grad), strict=True):
            # Centred first: slope * x and slope * mean would cancel where the mean is many deviations from 0. Offset
            # last: the sum over the rows comes nearest to the 0 that it is, and a bias before this layer sees that sum.
            as_if_constant = grad_part * direct
            torch.add(as_if_constant.addcmul_(x_part - centre, slope), offset, out=x_grad_part)
        return x_grad, weight_grad, bias_grad, None, None


_PART_BYTES = 256 * 1024
"""A part and what is computed from it stay in a core's cache; a whole layer would come from memory in every pass."""


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    """`x`, some rows at a time."""
    row_bytes = x.nbytes // max(len(x), 1)
    parts: tuple[Tensor, ...] = x.split(max(_PART_BYTES // max(row_bytes, 1), 1))
    return parts


def _along_channels(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(1, -1, *[1] * (like.dim() - 2))
