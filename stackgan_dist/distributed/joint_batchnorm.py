"""What the batch norms over ranks have in common: they take the place of a plain one, under the same names."""

from __future__ import annotations

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

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected (N, C, ...), got {tuple(input.shape)}")
