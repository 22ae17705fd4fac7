"""Batch normalisation over the global batch.

On CUDA torch's own SyncBatchNorm does it. torch has none for CPU tensors, so this is one: forward, backward and
running statistics equal those of one process on the whole batch, for uneven shares of it too.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def synchronise_batchnorm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm in `module` by one over all ranks; the state dict keeps its names."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            setattr(module, name, _SyncBatchNormCPU.like(child))
        else:
            synchronise_batchnorm(child, device)
    return module


class _SyncBatchNormCPU(_BatchNorm):
    """Batch norm over dimension 1 of (N, C) or (N, C, H, W), with the statistics of all ranks' rows."""

    @classmethod
    def like(cls, plain: _BatchNorm) -> _SyncBatchNormCPU:
        """A synchronised batch norm that shares the parameters and buffers of `plain`."""
        module = cls(plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats)
        module.weight, module.bias = plain.weight, plain.bias
        module.running_mean, module.running_var = plain.running_mean, plain.running_var
        module.num_batches_tracked = plain.num_batches_tracked
        module.train(plain.training)
        return module

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        # Half precision would lose the statistics; the result goes back to the input's type, as torch's own does.
        wide = input if input.dtype == torch.float64 else input.float()
        output, mean, variance, count = _Normalise.apply(wide, self.weight, self.bias, self.eps)
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.num_batches_tracked += 1
            unbiased = variance * (count / (count - 1))
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var), self.momentum)
        return output.to(input.dtype)


class _Normalise(torch.autograd.Function):
    """y = (x - mean) * weight / sqrt(variance + eps) + bias with mean and variance over the rows of all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        axes = [axis for axis in range(x.dim()) if axis != 1]
        # One collective: each rank's count, mean and sum of squares about its own mean, combined as Chan, Golub and
        # LeVeque do (1979). E[x^2] - E[x]^2 would cancel; summing gathered parts has one order on every rank.
        local_count = x.numel() // x.shape[1]
        local_mean = x.sum(axes) / max(local_count, 1)
        local_squares = (x - _along_channels(local_mean, x)).square().sum(axes)
        parts = _gather(torch.cat([x.new_tensor([local_count]), local_mean, local_squares]))
        counts, (means, squares) = parts[:, :1], parts[:, 1:].chunk(2, dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (squares + counts * (means - mean).square()).sum(0) / count
        centred = x - _along_channels(mean, x)
        inverse_std = torch.rsqrt(variance + eps)
        ctx.save_for_backward(centred, inverse_std, weight, count)
        ctx.mark_non_differentiable(mean, variance, count)
        scale = _along_channels(inverse_std * weight, x)
        return torch.addcmul(_along_channels(bias, x), centred, scale), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        centred, inverse_std, weight, count = ctx.saved_tensors
        axes = [axis for axis in range(grad.dim()) if axis != 1]
        local = torch.stack([grad.sum(axes), (grad * centred).sum(axes)])
        # The gradients of weight and bias stay those of this rank's rows: the engine averages them like any other.
        weight_grad, bias_grad = local[1] * inverse_std, local[0].clone()
        dist.all_reduce(local)
        mean_grad, mean_grad_centred = local / count
        x_grad = grad - _along_channels(mean_grad, grad)
        x_grad -= centred * _along_channels(mean_grad_centred * inverse_std.square(), grad)
        x_grad *= _along_channels(inverse_std * weight, grad)
        return x_grad, weight_grad, bias_grad, None


def _gather(part: Tensor) -> Tensor:
    """`part` (n,) of every rank, (ranks, n)."""
    ranks = dist.get_world_size()
    parts = part.new_empty(ranks * len(part))
    dist.all_gather_into_tensor(parts, part)
    return parts.view(ranks, len(part))


def _along_channels(vector: Tensor, like: Tensor) -> Tensor:
    return vector.view(1, -1, *[1] * (like.dim() - 2))
