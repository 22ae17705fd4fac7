"""What the batch norms over ranks have in common: they take the place of a plain one, under the same names."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


class JointBatchNorm(_BatchNorm):
    """Batch norm over dimension 1 of (N, C) or (N, C, H, W), with the statistics of all ranks' rows.

    Args:
        plain: whose weights, statistics and settings it takes over.
    """

    def __init__(self, plain: _BatchNorm) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum, plain.affine, plain.track_running_stats)
        self.weight, self.bias = plain.weight, plain.bias
        self.running_mean, self.running_var = plain.running_mean, plain.running_var
        self.num_batches_tracked = plain.num_batches_tracked
        self.train(plain.training)

    def forward(self, input: Tensor) -> Tensor:
        """`input` normalised: by the statistics of all ranks' rows in training, which are noted, else by the noted."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        return self._normalise(input)

    def _normalise(self, input: Tensor) -> Tensor:
        """`input` by the statistics of all ranks' rows; it moves the running ones. What differs between devices."""
        raise NotImplementedError

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C, ...), got {tuple(input.shape)}")


def format_of(x: Tensor) -> torch.memory_format:
    """How `x` lies in memory, and so what the kernels want of what goes with it."""
    if not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format
